package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
)

const (
	lastSignedFile  = "last-signed"
	highestSeenFile = "highest-seen"
)

// last-signed has two slots of a disk's sector each, and a signature takes the
// one that the signature before it did not: one sync of bytes that have their
// place already. A slot is the checkpoint's text, zeros, and a CRC-32C of all
// that; the first signature is in both. A sector is written whole or not at
// all, so a slot that does not match its checksum is damage, and who can't tell
// what it signed must not sign.
const (
	signedSlot  = 512
	signedSlots = 2
)

// ParseLastSigned reads the file last-signed: the checkpoint signed last and
// the slot it is in. It also reads the file as it was before it had slots, one
// checkpoint's text, as of slot -1.
func ParseLastSigned(raw []byte) (last receipt.Checkpoint, slot int, err error) {
	if len(raw) != signedSlots*signedSlot {
		last, err = receipt.ParseCheckpoint(raw)
		return last, -1, err
	}
	slot = -1
	for i := range signedSlots {
		at := raw[i*signedSlot : (i+1)*signedSlot]
		text := bytes.TrimRight(at[:signedSlot-4], "\x00")
		if binary.BigEndian.Uint32(at[signedSlot-4:]) != crc32.Checksum(at[:signedSlot-4], castagnoli) {
			return receipt.Checkpoint{}, -1, fmt.Errorf("slot %d is damaged: it does not match its checksum", i)
		}
		c, err := receipt.ParseCheckpoint(text)
		if err != nil {
			return receipt.Checkpoint{}, -1, fmt.Errorf("slot %d: %w", i, err)
		}
		if slot < 0 || c.Size > last.Size {
			last, slot = c, i
		}
	}
	return last, slot, nil
}

// signedText is a slot's content.
func signedText(c receipt.Checkpoint) ([]byte, error) {
	out := make([]byte, signedSlot)
	if text := c.Marshal(); copy(out[:signedSlot-4], text) < len(text) {
		return nil, errors.New("replica: a checkpoint is longer than what last-signed holds")
	}
	binary.BigEndian.PutUint32(out[signedSlot-4:], crc32.Checksum(out[:signedSlot-4], castagnoli))
	return out, nil
}

// lastSigned is the durable memory of the highest checkpoint this node
// signed, and of the height below which it must not. Its advance is the only
// way to a signature, so that a node never signs two heads of one size and
// never goes back, whatever happens to the rest of its data. Keep it out of
// backups: restored, it would forget.
type lastSigned struct {
	disk tiles.Disk
	dir  string
	mu   sync.Mutex
	last receipt.Checkpoint // zero before the first
	slot int                // of last; -1 while the file has no slots
	seen uint64             // never sign below
	// written is the part of seen that is on disk.
	written uint64
}

func openLastSigned(disk tiles.Disk, dir string) (*lastSigned, error) {
	l := &lastSigned{disk: disk, dir: dir, slot: -1}
	raw, err := disk.ReadFile(filepath.Join(dir, lastSignedFile))
	if err == nil {
		if l.last, l.slot, err = ParseLastSigned(raw); err != nil {
			return nil, fmt.Errorf("replica: %s: %w; delete it only while the peers run: they know what this node signed, and it signs nothing before it heard from them",
				filepath.Join(dir, lastSignedFile), err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	raw, err = disk.ReadFile(filepath.Join(dir, highestSeenFile))
	if err == nil {
		if l.seen, err = ParseHighestSeen(raw); err != nil {
			return nil, fmt.Errorf("replica: %s: %w; delete it, the peers say again what they signed", filepath.Join(dir, highestSeenFile), err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l.written = l.seen
	return l, nil
}

// summed returns a file of this memory: a text and a line with its SHA-256. A
// height or a root with a wrong digit is still one, and would be believed.
func summed(text []byte) []byte {
	sum := sha256.Sum256(text)
	return append(text[:len(text):len(text)], base64.StdEncoding.EncodeToString(sum[:])+"\n"...)
}

func unsum(raw []byte) ([]byte, error) {
	text := raw[:bytes.LastIndexByte(bytes.TrimSuffix(raw, []byte{'\n'}), '\n')+1]
	if !bytes.Equal(raw, summed(text)) {
		return nil, errors.New("it is damaged: it does not match its checksum")
	}
	return text, nil
}

func formatSeen(seen uint64) []byte { return summed(fmt.Appendf(nil, "%d\n", seen)) }

// ParseHighestSeen reads the file highest-seen: the height below which its
// replica signs nothing.
func ParseHighestSeen(raw []byte) (uint64, error) {
	text, err := unsum(raw)
	if err != nil {
		return 0, err
	}
	seen, err := strconv.ParseUint(strings.TrimSuffix(string(text), "\n"), 10, 63)
	if err != nil {
		return 0, errors.New("it is not a number")
	}
	return seen, nil
}

// check reads the memory back from disk and compares it with what this replica
// goes by.
func (l *lastSigned) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	signed := func(raw []byte) bool {
		last, slot, err := ParseLastSigned(raw)
		return err == nil && last == l.last && slot == l.slot
	}
	seen := func(raw []byte) bool { return bytes.Equal(raw, formatSeen(l.written)) }
	for _, f := range []struct {
		name  string
		is    func([]byte) bool
		fresh bool
	}{
		{lastSignedFile, signed, l.last.Size == 0 && l.last.Origin == ""},
		{highestSeenFile, seen, l.written == 0},
	} {
		raw, err := l.disk.ReadFile(filepath.Join(l.dir, f.name))
		if f.fresh && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !f.is(raw) {
			err = errors.New("it is not what was written")
		}
		if err != nil {
			return &core.Violation{Rule: "ledger.sign.memory", What: fmt.Sprintf("the memory of what was signed, %s: %v", f.name, err)}
		}
	}
	return nil
}

// height is the size that was signed last, 0 before the first.
func (l *lastSigned) height() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.Size
}

// advance records that c is about to be signed. It returns false without an
// error while c is below what was signed or seen before, as when a replica
// rebuilds; it fails when c contradicts what was signed. rootAt gives the
// roots c's tree had at smaller sizes.
func (l *lastSigned) advance(c receipt.Checkpoint, rootAt func(uint64) (receipt.Hash, error)) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.last.Origin != "" && l.last.Origin != c.Origin:
		return false, errors.New("replica: the memory of what was signed is of another ledger")
	case c.Size < l.seen:
		return false, l.persistSeen()
	case c.Size < l.last.Size:
		return false, nil
	case c == l.last:
		return true, nil
	}
	if l.last.Size > 0 {
		root, err := rootAt(l.last.Size)
		if err != nil {
			return false, err
		}
		if root != l.last.Root {
			return false, &core.Violation{Rule: "ledger.sign.fork", What: fmt.Sprintf("a different head of size %d was signed before", l.last.Size)}
		}
	}
	if err := l.write(c); err != nil {
		return false, err
	}
	return true, nil
}

// write makes c the checkpoint signed last. The caller holds mu.
func (l *lastSigned) write(c receipt.Checkpoint) error {
	text, err := signedText(c)
	if err != nil {
		return err
	}
	slot := 0
	if l.slot < 0 {
		// The file is made, or made anew with slots, as a whole.
		err = l.disk.WriteFile(l.dir, lastSignedFile, bytes.Repeat(text, signedSlots))
	} else {
		slot = (l.slot + 1) % signedSlots
		err = l.disk.Overwrite(filepath.Join(l.dir, lastSignedFile), text, int64(slot*signedSlot))
	}
	if err != nil {
		return err
	}
	l.last, l.slot = c, slot
	return nil
}

// remember takes a head this node's own key signed and that it doesn't know
// of: its memory is older than its signatures.
func (l *lastSigned) remember(c receipt.Checkpoint) (forgot bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.Size < l.last.Size || c == l.last:
		return false, nil
	case c.Size == l.last.Size:
		return true, &core.Violation{Rule: "ledger.sign.twice", What: fmt.Sprintf("this node's key signed two heads of size %d", c.Size)}
	}
	return true, l.write(c)
}

// see raises the height below which nothing is signed. It becomes durable
// when it first withholds a signature; a restarted node hears it again from
// its peers before it signs.
func (l *lastSigned) see(size uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = max(l.seen, size)
}

func (l *lastSigned) persistSeen() error {
	if l.seen <= l.written {
		return nil
	}
	if err := l.disk.WriteFile(l.dir, highestSeenFile, formatSeen(l.seen)); err != nil {
		return err
	}
	l.written = l.seen
	return nil
}
