// Command centralka is the telephone switch, recorder and archive of a city's
// contact centre: one program, told apart by its first argument. serve runs it;
// the other commands check a configuration, look into the vault or show the
// program at work. They end with 0 if all is well, 1 if something is wrong, and
// 2 if they were called wrongly.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
)

// exit codes of every command.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const defaultConfigPath = "/etc/centralka/centralka.toml"

// command is one thing that the program does. A name of two words is a
// subcommand: retention preview.
type command struct {
	name    string
	summary string
	run     func(args []string, stdout, stderr io.Writer) int
}

// commands lists them in the order in which help shows them.
func commands() []command {
	return []command{
		{"serve", "run the switch until a signal", runServe},
		{"demo", "run the switch with a simulated carrier and phones", runDemo},
		{"check", "check a configuration and show the values in effect", runCheck},
		{"retention preview", "list what the sweep of a day will remove", runPreview},
		{"retention confirm", "confirm the clock for which a sweep is held", runConfirm},
		{"verify", "hash every recording again, follow the audit log", runVerify},
		{"user add", "make an account of the console, the first administrator's above all", runUser("add", "Makes an account and prints a password for its first login.")},
		{"user list", "list the accounts", runUser("list", "Lists the accounts.")},
		{"user reset", "give an account a new password and no second factor", runUser("reset", "Prints a new password, takes the second factor away and ends the account's\nsessions.")},
		{"user disable", "keep an account from logging in", runUser("disable", "Ends the account's sessions and keeps it from logging in.")},
		{"backup", "bring a backup of the vault, or of its keys, up to date", runBackup},
		{"restore", "make a vault of a backup", runRestore},
		{"bench", "measure the switch on this machine under recorded calls", runBench},
		{"version", "say which version this is", runVersion},
	}
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		usage(stdout)
		return exitOK
	}
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c.run(args[len(words):], stdout, stderr)
		}
	}
	var group []string
	for _, c := range commands() {
		if strings.HasPrefix(c.name, args[0]+" ") {
			group = append(group, "centralka "+c.name)
		}
	}
	if group != nil {
		fmt.Fprintf(stderr, "centralka: say what of %s: %s\n", args[0], strings.Join(group, ", "))
	} else {
		fmt.Fprintf(stderr, "centralka: there is no command %q; centralka help lists them\n", args[0])
	}
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "centralka is a telephone switch, recorder and archive.\n\nUsage: centralka COMMAND [flags]\n\n")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(tw, "  %s\t%s\n", c.name, c.summary)
	}
	if err := tw.Flush(); err != nil {
		return // nobody reads
	}
	fmt.Fprint(w, "\ncentralka COMMAND -h tells its flags. Exit status: 0 done, 1 something is wrong, 2 called wrongly.\n")
}

// newFlags makes a command's flags; about is one line on what it does.
func newFlags(name, about string, stderr io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintf(stderr, "Usage: centralka %s [flags]\n\n%s\n\n", name, about)
		fs.PrintDefaults()
	}
	return fs
}

// parseFlags reads args, which hold nothing but flags. When it reports false
// the command ends with the code.
func parseFlags(fs *flag.FlagSet, args []string, stderr io.Writer) (code int, ok bool) {
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK, false
	case err != nil:
		return exitUsage, false
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "centralka %s: %q is no flag; centralka %[1]s -h lists them\n", fs.Name(), fs.Arg(0))
		return exitUsage, false
	}
	return exitOK, true
}

// parseFolder is parseFlags for a command that takes a folder behind its flags.
func parseFolder(fs *flag.FlagSet, args []string, stderr io.Writer) (dir string, code int, ok bool) {
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return "", exitOK, false
	case err != nil:
		return "", exitUsage, false
	case fs.NArg() != 1:
		fmt.Fprintf(stderr, "centralka %s: name one folder, behind the flags; centralka %[1]s -h tells more\n", fs.Name())
		return "", exitUsage, false
	}
	return fs.Arg(0), exitOK, true
}

func runVersion(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("version", "Says which version this is and what it was built with.", stderr)
	if code, ok := parseFlags(fs, args, stderr); !ok {
		return code
	}
	fmt.Fprintf(stdout, "centralka %s, %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK
}

// version names the build: the module's version, or the revision that it was
// built from.
func version() string {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	setting := func(key string) string {
		for _, s := range build.Settings {
			if s.Key == key {
				return s.Value
			}
		}
		return ""
	}
	if v := build.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision := setting("vcs.revision")
	if revision == "" {
		return "devel"
	}
	v := revision[:min(12, len(revision))]
	if day, _, ok := strings.Cut(setting("vcs.time"), "T"); ok {
		v += " of " + day
	}
	if setting("vcs.modified") == "true" {
		v += ", modified"
	}
	return v
}
