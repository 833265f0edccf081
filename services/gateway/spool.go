package gateway

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"os"

	"github.com/probity-health/probity/services/problem"
)

// spool holds a file's raw bytes on local disk while it is worked on. The
// disk sees ciphertext under a key that never leaves this process's memory
// (AES-256-CTR, one key a spool), in a file that is unlinked at once: nothing
// readable outlives the process. Written once from start to end, then read at
// any place; safe for concurrent reading.
type spool struct {
	file  *os.File
	block cipher.Block
	out   cipher.Stream
	sum   hash.Hash
	size  int64
	limit int64
}

func newSpool(dir string, limit int64) (*spool, error) {
	var key [32]byte
	rand.Read(key[:]) // never fails
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "probity-spool-*") // mode 0600
	if err != nil {
		return nil, unavailable("gateway.spool", "the gateway can't write to its spool", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(unavailable("gateway.spool", "the gateway can't unlink its spool", err), f.Close())
	}
	return &spool{file: f, block: block, out: cipher.NewCTR(block, make([]byte, aes.BlockSize)), sum: sha256.New(), limit: limit}, nil
}

// Write appends p; beyond the limit it fails with an Invalid problem.
func (s *spool) Write(p []byte) (int, error) {
	if s.size+int64(len(p)) > s.limit {
		return 0, problem.New(problem.Invalid, problem.Problem{RuleID: "gateway.file.too-large", Message: "the file is larger than this gateway accepts",
			Fix: "split the file by transaction set and send the parts"})
	}
	s.sum.Write(p)
	box := make([]byte, len(p))
	s.out.XORKeyStream(box, p)
	if _, err := s.file.Write(box); err != nil {
		return 0, unavailable("gateway.spool", "the gateway can't write to its spool", err)
	}
	s.size += int64(len(p))
	return len(p), nil
}

// ReadAt implements io.ReaderAt.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.file.ReadAt(p, off)
	if n == 0 {
		return 0, err
	}
	// The counter is the number of the block the offset lies in; the stream
	// then starts at the offset within it.
	iv := make([]byte, aes.BlockSize)
	binary.BigEndian.PutUint64(iv[8:], uint64(off/aes.BlockSize))
	stream := cipher.NewCTR(s.block, iv)
	var skip [aes.BlockSize]byte
	stream.XORKeyStream(skip[:off%aes.BlockSize], skip[:off%aes.BlockSize])
	stream.XORKeyStream(p[:n], p[:n])
	return n, err
}

// reader reads the spool from the start.
func (s *spool) reader() io.Reader { return io.NewSectionReader(s, 0, s.size) }

func (s *spool) digest() []byte { return s.sum.Sum(nil) }

func (s *spool) close() { _ = s.file.Close() } // unlinked and never synced: nothing to lose
