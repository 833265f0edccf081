package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/probity-health/probity/services/ledger/tiles"
)

// takeTable adds the rows that spell gives, sorted and each key once, as one
// table: all of them or none, and durable when it returns. They pass neither
// through the database's log nor through its memory, and are written once where
// they would be twice.
func (s *Store) takeTable(spell func(setter) error) error {
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	path := s.newTable()
	// What a failure left under this name may be a file of the database, too: it
	// is given up, never written over.
	if err := s.fs().Remove(path); err != nil && !tiles.IsNotExist(err) {
		return err
	}
	f, err := s.fs().Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	opts := storeOptions(s.disk, s.log)
	defer opts.Cache.Unref()
	opts.EnsureDefaults()
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), opts.MakeWriterOptions(0, s.db.TableFormat()))
	err = spell(w.Set)
	// It syncs the file.
	if err = errors.Join(err, w.Close()); err == nil {
		err = s.db.Ingest(context.Background(), []string{path})
	}
	if err != nil {
		return fmt.Errorf("replica: add a table of index rows to the local store: %w", err)
	}
	return nil
}

// newTable is where a table is written before the database takes it: beside
// the database's folder, on the same disk.
func (s *Store) newTable() string { return s.files + ".new" }
