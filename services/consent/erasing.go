package consent

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// erasing sets a store up so that it overwrites its files before it removes
// them: an erased subject's wrapped key must not wait on the disk for somebody
// with the master key. (It reaches as far as the file system overwrites in
// place; a copy-on-write one needs its own answer, as backups do.)
//
// Pebble keeps obsolete logs under new names for reuse, old bytes and all,
// unless its cleaner is the one that archives. So it is told to archive, and
// what it moves to the archive is erased instead.
func erasing(o *pebble.Options) *pebble.Options {
	o.FS = erasingFS{vfs.Default}
	o.Cleaner = pebble.ArchiveCleaner{}
	return o
}

type erasingFS struct{ vfs.FS }

// archive is the folder that pebble.ArchiveCleaner moves files to.
const archive = "archive"

// Unwrap implements vfs.FS.
func (e erasingFS) Unwrap() vfs.FS { return e.FS }

// MkdirAll makes no archive: nothing goes there.
func (e erasingFS) MkdirAll(dir string, perm os.FileMode) error {
	if filepath.Base(dir) == archive {
		return nil
	}
	return e.FS.MkdirAll(dir, perm)
}

// Rename erases what would be archived.
func (e erasingFS) Rename(from, to string) error {
	if filepath.Base(filepath.Dir(to)) == archive {
		return e.Remove(from)
	}
	return e.FS.Rename(from, to)
}

// Remove overwrites a regular file with zeros, durably, and removes it.
func (e erasingFS) Remove(name string) error {
	info, err := e.Stat(name)
	if err != nil || info.IsDir() {
		return e.FS.Remove(name)
	}
	f, err := e.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for at := int64(0); err == nil && at < info.Size(); at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), info.Size()-at)], at)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), e.FS.Remove(name))
}
