package embedded

import (
	"errors"
	"log/slog"

	"github.com/probity-health/probity/services/views/localstore"
)

// Lists is the store of the views.
type Lists struct {
	*localstore.Store
	release func() error
}

// OpenLists opens the store of the views in a directory. A start goes on where
// the last one stopped.
func OpenLists(dir string, log *slog.Logger) (*Lists, error) {
	release, err := claimDir(dir)
	if err != nil {
		return nil, err
	}
	store, err := localstore.Open(dir, log)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return &Lists{Store: store, release: release}, nil
}

// Close closes the store and lets others have the directory.
func (l *Lists) Close() error { return errors.Join(l.Store.Close(), l.release()) }
