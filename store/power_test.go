package store

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// platter is what a disk has of a vault when the power fails: of a file what it
// held at its last fsync, of a folder the names that it had at its last one.
// Databases are as they are now: bbolt syncs what it commits, and the package
// never writes into them by itself.
type platter struct {
	t       *testing.T
	dir     string
	content map[uint64][]byte            // inode -> bytes
	names   map[uint64]map[string]uint64 // inode of a folder -> inodes
	folders map[uint64]bool
}

func newPlatter(t *testing.T, dir string) *platter {
	return &platter{t, dir, map[uint64][]byte{}, map[uint64]map[string]uint64{}, map[uint64]bool{}}
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

// sync takes in a file or folder.
func (p *platter) sync(name string) {
	info, err := os.Stat(name)
	if os.IsNotExist(err) {
		return // was unlinked while it was open
	}
	must(p.t, err)
	if !info.IsDir() {
		p.content[inode(info)], err = os.ReadFile(name)
		must(p.t, err)
		return
	}
	entries, err := os.ReadDir(name)
	must(p.t, err)
	list := map[string]uint64{}
	for _, e := range entries {
		info, err := e.Info()
		must(p.t, err)
		list[e.Name()] = inode(info)
		if e.IsDir() {
			p.folders[inode(info)] = true
		}
	}
	p.names[inode(info)] = list
}

// syncAll is syncfs.
func (p *platter) syncAll() {
	must(p.t, filepath.WalkDir(p.dir, func(name string, _ fs.DirEntry, err error) error {
		if err == nil {
			p.sync(name)
		}
		return err
	}))
}

// databases takes in the databases as they are.
func (p *platter) databases() {
	must(p.t, filepath.WalkDir(p.dir, func(name string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".db") {
			p.sync(name)
		}
		return err
	}))
}

// image writes what is on the disk to a folder.
func (p *platter) image(to string) {
	p.databases()
	info, err := os.Stat(p.dir)
	must(p.t, err)
	var write func(ino uint64, to string)
	write = func(ino uint64, to string) {
		must(p.t, os.MkdirAll(to, 0o700))
		for name, child := range p.names[ino] {
			if p.folders[child] {
				write(child, filepath.Join(to, name))
			} else {
				must(p.t, os.WriteFile(filepath.Join(to, name), p.content[child], 0o600))
			}
		}
	}
	write(inode(info), to)
}

// TestPowerFailsAtEveryOperation: what was acknowledged is there, what was
// destroyed is not, if all is lost that was not synced.
func TestPowerFailsAtEveryOperation(t *testing.T) {
	if !syncedAsAWhole {
		t.Log("journals are synced one by one here: not this test's case")
		return
	}
	base := memoryDir(t)
	dir := filepath.Join(base, "vault")
	p := newPlatter(t, dir)
	a := newAcked()
	type moment struct {
		what, dir string
		acked     *acked
	}
	var moments []moment
	keep := func(what string) {
		m := moment{what, filepath.Join(base, fmt.Sprint(len(moments))), a.clone()}
		for id := range m.acked.blocks {
			if !a.synced[id] {
				delete(m.acked.blocks, id)
			}
		}
		p.image(m.dir)
		moments = append(moments, m)
	}
	f := &faults{}
	f.at = func(n int) error {
		p.databases() // before one is unlinked
		keep(fmt.Sprint("power fails before operation ", n))
		return nil
	}
	ops := f.ops()
	fsync, syncfs := ops.fsync, ops.syncfs
	ops.fsync = func(file *os.File) error {
		err := fsync(file)
		p.sync(absolute(dir, file))
		return err
	}
	ops.syncfs = func(file *os.File) error {
		err := syncfs(file)
		p.syncAll()
		return err
	}
	must(t, os.Mkdir(dir, 0o700))
	s := openTest(t, Config{Dir: dir, MasterKey: sharedKey(dir), files: ops})
	script(s, a)
	keep("power fails at the end")
	f.at = func(int) error { return nil }
	closeTest(t, s)
	if len(moments) < 80 || !a.doomed {
		t.Fatalf("%d moments, acknowledged %+v", len(moments), a)
	}
	for _, m := range moments {
		inspect(t, m.what, m.dir, m.acked)
	}
}

// absolute is a file's path. Those that are opened through os.Root know only
// the one inside.
func absolute(dir string, f *os.File) string {
	if filepath.IsAbs(f.Name()) {
		return f.Name()
	}
	return filepath.Join(dir, f.Name())
}

// TestEveryCommit takes a copy of the vault as of each commit of one of its
// databases and inspects all of them: bbolt has no seam for faults, so this is
// what a kill between two of its commits leaves.
func TestEveryCommit(t *testing.T) {
	base := memoryDir(t)
	dir := filepath.Join(base, "vault")
	a := newAcked()
	type moment struct {
		dir   string
		acked *acked
	}
	var moments []moment
	files := osFiles
	files.committed = func() {
		m := moment{filepath.Join(base, fmt.Sprint(len(moments))), a.clone()}
		moments = append(moments, m)
		must(t, os.CopyFS(m.dir, os.DirFS(dir)))
	}
	s := openTest(t, Config{Dir: dir, MasterKey: sharedKey(dir), files: &files})
	script(s, a)
	closeTest(t, s)
	if len(moments) < 25 {
		t.Fatalf("%d commits", len(moments))
	}
	for i, m := range moments {
		inspect(t, fmt.Sprint("killed after commit ", i), m.dir, m.acked)
	}
}
