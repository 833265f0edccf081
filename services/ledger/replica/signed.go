package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
)

const lastSignedFile = "last-signed"

// lastSigned is the durable memory of the highest checkpoint this node
// signed. Its advance is the only way to a signature, so that a node never
// signs two heads of one size and never goes back, whatever happens to the
// rest of its data. Keep it out of backups: restored, it would forget.
type lastSigned struct {
	disk tiles.Disk
	dir  string
	mu   sync.Mutex
	last receipt.Checkpoint // zero before the first
}

func openLastSigned(disk tiles.Disk, dir string) (*lastSigned, error) {
	l := &lastSigned{disk: disk, dir: dir}
	raw, err := disk.ReadFile(filepath.Join(dir, lastSignedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	if l.last, err = receipt.ParseCheckpoint(raw); err != nil {
		return nil, fmt.Errorf("replica: %s: %w", lastSignedFile, err)
	}
	return l, nil
}

// advance records that c is about to be signed. It returns false without an
// error while c is below what was signed before, as when a replica rebuilds;
// it fails when c contradicts it.
func (l *lastSigned) advance(c receipt.Checkpoint) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.last.Origin != "" && l.last.Origin != c.Origin:
		return false, errors.New("replica: the data directory signed for another ledger")
	case c.Size < l.last.Size:
		return false, nil
	case c == l.last:
		return true, nil
	case c.Size == l.last.Size:
		return false, fmt.Errorf("replica: a different head of size %d was signed before", c.Size)
	}
	if err := l.disk.WriteFile(l.dir, lastSignedFile, c.Marshal()); err != nil {
		return false, err
	}
	l.last = c
	return true, nil
}
