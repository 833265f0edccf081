package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
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
	seen uint64             // never sign below
	// written is the part of seen that is on disk.
	written uint64
}

func openLastSigned(disk tiles.Disk, dir string) (*lastSigned, error) {
	l := &lastSigned{disk: disk, dir: dir}
	raw, err := disk.ReadFile(filepath.Join(dir, lastSignedFile))
	if err == nil {
		if l.last, err = ParseLastSigned(raw); err != nil {
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

// ParseLastSigned reads the file last-signed: the highest head that its
// replica signed.
func ParseLastSigned(raw []byte) (receipt.Checkpoint, error) {
	text, err := unsum(raw)
	if err != nil {
		return receipt.Checkpoint{}, err
	}
	return receipt.ParseCheckpoint(text)
}

// check reads the memory back from disk and compares it with what this replica
// goes by.
func (l *lastSigned) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range []struct {
		name string
		want []byte
		none bool
	}{
		{lastSignedFile, summed(l.last.Marshal()), l.last.Size == 0 && l.last.Origin == ""},
		{highestSeenFile, formatSeen(l.written), l.written == 0},
	} {
		raw, err := l.disk.ReadFile(filepath.Join(l.dir, f.name))
		if f.none && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !bytes.Equal(raw, f.want) {
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
	if err := l.disk.WriteFile(l.dir, lastSignedFile, summed(c.Marshal())); err != nil {
		return false, err
	}
	l.last = c
	return true, nil
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
	if err := l.disk.WriteFile(l.dir, lastSignedFile, summed(c.Marshal())); err != nil {
		return true, err
	}
	l.last = c
	return true, nil
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
