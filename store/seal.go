package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"filippo.io/age"
)

// A journal begins as an age file does, with a header that wraps a random file
// key to the day's recipient, and 16 random bytes. The rest is ours, because
// age's own stream holds back 64 KiB and refuses a file that was cut, and a
// journal must lose nothing but a torn end:
//
//	journal key = HKDF-SHA-256(secret: file key, salt: the 16 bytes, info: "centralka journal v1"), 32 bytes
//
// Frames are sealed by AES-256-GCM, each by itself:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           length of the block, 1..MaxBlock, little-endian     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           number of the sealing, from 1, little-endian        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        sealed block ...
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         tag, 16 bytes                         |
//
// The number counts every sealing, those included whose write failed, and is
// the nonce: none is used twice under a key, though the failed frame may have
// reached the disk. The frame's place in the journal, counted from 0, is
// authenticated with its head, so frames that were moved, doubled, left out or
// taken from another journal do not open. There is no empty block, so zeros,
// which a crash may leave at a file's end, are not a frame.
const (
	frameHeader = 8
	frameTag    = 16
	// MaxBlock is the longest block of a journal, in bytes: a frame is at most
	// 64 KiB.
	MaxBlock = 64<<10 - frameHeader - frameTag

	journalLabel = "centralka journal v1"
	journalSalt  = 16
)

// captured is a recipient that keeps the key that age draws.
type captured struct {
	age.Recipient
	fileKey []byte
}

func (c *captured) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	c.fileKey = bytes.Clone(fileKey)
	return c.Recipient.Wrap(fileKey)
}

// newJournalSeal draws a journal's key and returns what the file begins with.
func newJournalSeal(to age.Recipient) (head []byte, seal *frameSeal, err error) {
	var file bytes.Buffer
	key := &captured{Recipient: to}
	if _, err := age.Encrypt(&file, key); err != nil { // header and salt; its stream is not used
		return nil, nil, err
	}
	seal, err = newFrameSeal(key.fileKey, file.Bytes()[file.Len()-journalSalt:])
	return file.Bytes(), seal, err
}

// openJournalSeal reads a journal's head and returns what opens its frames
// and where they begin.
func openJournalSeal(r io.Reader, key age.Identity) (seal *frameSeal, begin int64, err error) {
	var all bytes.Buffer
	in := io.TeeReader(io.LimitReader(r, maxKeyFile), &all)
	header, err := age.ExtractHeader(in)
	if err != nil {
		return nil, 0, err
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // age reads ahead
		return nil, 0, err
	}
	begin = int64(len(header)) + journalSalt
	if int64(all.Len()) < begin || !bytes.HasPrefix(all.Bytes(), header) {
		return nil, 0, errors.New("its head is cut")
	}
	fileKey, err := age.DecryptHeader(header, key)
	if err != nil {
		return nil, 0, err
	}
	seal, err = newFrameSeal(fileKey, all.Bytes()[len(header):begin])
	return seal, begin, err
}

// frameSeal seals and opens the frames of one journal. It belongs to whoever
// writes or reads the journal.
type frameSeal struct {
	aead  cipher.AEAD
	place uint64 // of the next frame
	count uint32 // sealings so far, or the number of the last frame opened
	nonce [12]byte
	bound [8 + frameHeader]byte // what is authenticated: place, frame's head
}

func newFrameSeal(fileKey, salt []byte) (*frameSeal, error) {
	key, err := hkdf.Key(sha256.New, fileKey, salt, journalLabel, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &frameSeal{aead: aead}, nil
}

func (s *frameSeal) bind(head []byte, number uint32) {
	binary.LittleEndian.PutUint32(s.nonce[8:], number)
	binary.LittleEndian.PutUint64(s.bound[:], s.place)
	copy(s.bound[8:], head)
}

// seal puts the frame of a block into frame's memory. The caller says with
// next when the frame is in the file.
func (s *frameSeal) seal(frame, block []byte) ([]byte, error) {
	if s.count == math.MaxUint32 {
		return nil, errors.New("no number is left for another frame")
	}
	s.count++
	frame = binary.LittleEndian.AppendUint32(frame[:0], uint32(len(block)))
	frame = binary.LittleEndian.AppendUint32(frame, s.count)
	s.bind(frame, s.count)
	return s.aead.Seal(frame, s.nonce[:], block, s.bound[:]), nil
}

// open opens a frame in place; ok says whether it is the next one.
func (s *frameSeal) open(frame []byte) (block []byte, ok bool) {
	number := binary.LittleEndian.Uint32(frame[4:])
	if number <= s.count {
		return nil, false
	}
	s.bind(frame[:frameHeader], number)
	block, err := s.aead.Open(frame[frameHeader:frameHeader], s.nonce[:], frame[frameHeader:], s.bound[:])
	if err != nil {
		return nil, false
	}
	s.count = number
	s.place++
	return block, true
}

// next says that the frame that was sealed last is in the file.
func (s *frameSeal) next() { s.place++ }

// Of an age file to one X25519 recipient: what stands before its stream (header
// and nonce), and the stream's chunks.
const (
	sealedHead  = 184
	sealedChunk = 64<<10 + frameTag
)

// plainSize is the length of what is in a sealed file of n bytes, zero if it
// is too short to be one.
func plainSize(n int64) int64 {
	n -= sealedHead
	chunks := (n + sealedChunk - 1) / sealedChunk
	return max(0, n-chunks*frameTag)
}

// sealedFile seals and hashes what it writes. It remembers an error, so that a
// caller that overlooks one does not get a shortened recording accepted.
type sealedFile struct {
	sealer io.WriteCloser // writes to an appendFile
	hash   io.Writer
	size   int64
	err    error
}

func (w *sealedFile) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.sealer.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	w.hash.Write(b[:n])
	w.size += int64(n)
	w.err = err
	return n, err
}

func (w *sealedFile) close() error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.sealer.Close(); w.err != nil {
		return w.err
	}
	w.err = fmt.Errorf("write after the end")
	return nil
}
