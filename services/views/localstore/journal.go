package localstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
)

// journal is a build's file: a magic line, then frames. A frame is the length
// of its payload and the payload's CRC-32C (4 bytes each, little endian), then
// the payload: the steps of one batch. The file is not synced; a frame whose
// sum is wrong, as after a crash of the machine, and all after it, is cut off.
type journal struct {
	file    *os.File
	written int64  // bytes of the file that are whole frames
	frame   []byte // the one that is being made, its head included
	behind  bool   // the frame is whole and could not be written
}

const (
	magic     = "probity lists 1\n"
	frameHead = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newJournal makes a build's file, empty whatever was there.
func newJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := file.WriteAt([]byte(magic), 0); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &journal{file: file, written: int64(len(magic)), frame: make([]byte, frameHead)}, nil
}

// openJournal opens a build's file, cuts off what a crash left of a last
// frame, and hands the others to follow. errSteps says that the file is
// another's, or can't be followed. Opened only to be read it stays as it is.
func openJournal(path string, readOnly bool, follow func(payload []byte, at int64) error) (*journal, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	file, err := os.OpenFile(path, mode, 0o600)
	if err != nil {
		return nil, err
	}
	whole, err := frames(file, follow)
	if err == nil && !readOnly {
		err = file.Truncate(whole)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &journal{file: file, written: whole, frame: make([]byte, frameHead)}, nil
}

// frames hands a file's frames to follow and returns where the last whole one ends.
func frames(file *os.File, follow func(payload []byte, at int64) error) (whole int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	in := bufio.NewReaderSize(file, 1<<20)
	first := make([]byte, len(magic))
	if _, err := io.ReadFull(in, first); err != nil || string(first) != magic {
		return 0, errSteps
	}
	whole = int64(len(magic))
	var payload []byte
	for {
		var head [frameHead]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return whole, nil // the end, or a head that was cut
		}
		n := int64(binary.LittleEndian.Uint32(head[:4]))
		if n > info.Size()-whole-frameHead {
			return whole, nil
		}
		payload = append(payload[:0], make([]byte, n)...)
		if _, err := io.ReadFull(in, payload); err != nil {
			return whole, err
		}
		if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
			return whole, nil
		}
		if err := follow(payload, whole+frameHead); err != nil {
			return whole, err
		}
		whole += frameHead + n
	}
}

// What follows adds to the frame.

func (j *journal) step(step byte, numbers ...uint64) {
	j.frame = append(j.frame, step)
	for _, n := range numbers {
		j.frame = binary.AppendUvarint(j.frame, n)
	}
}

func (j *journal) signed(n int64) { j.frame = binary.AppendVarint(j.frame, n) }

func (j *journal) string(text string) {
	j.frame = append(binary.AppendUvarint(j.frame, uint64(len(text))), text...)
}

func (j *journal) text(step byte, text string) {
	j.frame = append(j.frame, step)
	j.string(text)
}

// value adds a text and says where it is.
func (j *journal) value(text string) value {
	j.string(text)
	at := len(j.frame) - len(text)
	if len(text) <= inlineMost {
		return value{inline: j.frame[at:len(j.frame):len(j.frame)], n: len(text)}
	}
	return value{at: j.written + int64(at), n: len(text)}
}

// flush writes the frame. When that fails the frame stays, and what is in it
// is read from here; nothing is to be added until a flush has succeeded.
func (j *journal) flush() error {
	if len(j.frame) == frameHead {
		return nil
	}
	j.behind = true
	payload := j.frame[frameHead:]
	binary.LittleEndian.PutUint32(j.frame[:4], uint32(len(payload)))
	binary.LittleEndian.PutUint32(j.frame[4:8], crc32.Checksum(payload, castagnoli))
	if _, err := j.file.WriteAt(j.frame, j.written); err != nil {
		return err
	}
	j.written += int64(len(j.frame))
	if cap(j.frame) > 1<<20 {
		j.frame = make([]byte, frameHead, 1<<16)
	}
	j.frame, j.behind = j.frame[:frameHead], false
	return nil
}

// read returns n bytes at a place of the file, or of the frame that is to follow it.
func (j *journal) read(at int64, n int) (string, error) {
	if from := at - j.written; from >= 0 {
		return string(j.frame[from : from+int64(n)]), nil
	}
	text := make([]byte, n)
	if _, err := j.file.ReadAt(text, at); err != nil {
		return "", err
	}
	return string(text), nil
}

func (j *journal) close() error { return j.file.Close() }
