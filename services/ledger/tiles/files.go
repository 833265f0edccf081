package tiles

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

// Disk is where a replica keeps its files. The zero value is the operating
// system's file system.
type Disk struct {
	// FS holds the files; nil is the operating system's.
	FS vfs.FS
	// Serial does one operation at a time and in a fixed order, so that a
	// simulator can stop between any two and do so again. Without it files
	// are synced beside each other, which a file system commits at once.
	Serial bool
	// SegmentBytes is the size at which a file of commits is full; 0 is 64 MiB.
	SegmentBytes int64
}

// syncers bounds how many files one write has open.
const syncers = 8

// perm lets others read: nothing here is secret that they cannot fetch.
const perm = 0o755

func (d Disk) fs() vfs.FS {
	if d.FS == nil {
		return vfs.Default
	}
	return d.FS
}

// Together does 0 … n-1, several at a time or, on a serial disk, one after
// the other, and returns when all are done.
func (d Disk) Together(n int, do func(int) error) error { return d.together(n, -1, do) }

func (d Disk) together(n, limit int, do func(int) error) error {
	if d.Serial {
		var first error
		for i := range n {
			if err := do(i); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
	var group errgroup.Group
	group.SetLimit(limit)
	for i := range n {
		group.Go(func() error { return do(i) })
	}
	return group.Wait()
}

// Files is the file system beneath.
func (d Disk) Files() vfs.FS { return d.fs() }

// MakeFolder makes a folder and its parents and makes them durable.
func (d Disk) MakeFolder(dir string) error { return d.makeFolder(dir) }

// SyncFolder makes durable which files a folder has.
func (d Disk) SyncFolder(dir string) error { return d.syncDir(dir) }

// IsNotExist tells whether an error of a Disk says that there is no such file.
func IsNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// ReadFile returns a file's content. The error is fs.ErrNotExist when there
// is no such file.
func (d Disk) ReadFile(path string) ([]byte, error) {
	f, err := d.fs().Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// As large as the file: what grows to it is copied several times, and a
	// file of commits has 64 MiB.
	raw := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	_, err = raw.ReadFrom(f)
	return raw.Bytes(), err
}

// WriteFile replaces dir/name crash-safely: after it returns the file has
// the data, and at no time does it have anything but the old or the new. One
// call at a time may write a name.
func (d Disk) WriteFile(dir, name string, data []byte) error {
	return d.writeAll(dir, []file{{name, data}})
}

// Overwrite writes over bytes that a file has, and makes them durable. A crash
// leaves each sector as it was or as it is written.
func (d Disk) Overwrite(path string, data []byte, at int64) error {
	f, err := d.fs().OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	n, err := f.WriteAt(data, at)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.SyncData()
	}
	return errors.Join(err, f.Close())
}

// WriteFile is Disk.WriteFile on the operating system's file system.
func WriteFile(dir, name string, data []byte) error { return Disk{}.WriteFile(dir, name, data) }

// writeAll writes files under dir so that after it returns all are durable.
func (d Disk) writeAll(dir string, files []file) error {
	dirs := map[string]bool{}
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = filepath.Join(dir, filepath.FromSlash(f.path))
		parent := filepath.Dir(paths[i])
		if err := d.mkdirs(dir, parent, dirs); err != nil {
			return err
		}
		dirs[parent] = true
	}
	err := d.together(len(files), syncers, func(i int) error { return d.writeSynced(paths[i], files[i].data) })
	if err != nil {
		return err
	}
	folders := slices.Sorted(maps.Keys(dirs))
	return d.together(len(folders), syncers, func(i int) error { return d.syncDir(folders[i]) })
}

// makeFolder makes a folder and its parents and makes them durable: files that
// are synced in a folder that is not are lost with it.
func (d Disk) makeFolder(dir string) error {
	made := map[string]bool{}
	if err := d.mkdirs(string(filepath.Separator), filepath.Clean(dir), made); err != nil {
		return err
	}
	for _, parent := range slices.Sorted(maps.Keys(made)) {
		if err := d.syncDir(parent); err != nil {
			return err
		}
	}
	return nil
}

// mkdirs makes dir's missing parents below base and marks what must be synced.
func (d Disk) mkdirs(base, dir string, dirs map[string]bool) error {
	if dirs[dir] {
		return nil
	}
	if _, err := d.fs().Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if dir != base {
		if err := d.mkdirs(base, filepath.Dir(dir), dirs); err != nil {
			return err
		}
	}
	if err := d.fs().MkdirAll(dir, perm); err != nil {
		return err
	}
	dirs[filepath.Dir(dir)] = true
	return nil
}

func (d Disk) writeSynced(path string, data []byte) (err error) {
	// A crash leaves this name behind and the next write takes it again.
	temporary := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	f, err := d.fs().Create(temporary, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	// The file system may overwrite what it is given.
	_, err = f.Write(slices.Clone(data))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.fs().Rename(temporary, path)
	}
	if err != nil {
		_ = d.fs().Remove(temporary)
	}
	return err
}

func (d Disk) syncDir(dir string) error {
	f, err := d.fs().OpenDir(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
