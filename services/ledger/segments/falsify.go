package segments

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/probity-health/probity/services/ledger/tiles"
)

// Falsify changes the stored bytes of a commit and makes their checksum fit,
// in place: what no checksum of a disk's finds and only the trees do. It is
// for tests and the simulator. change must keep the length.
func Falsify(disk tiles.Disk, dir string, index uint64, change func(value []byte)) (err error) {
	l, err := Open(disk, dir)
	if err != nil {
		return err
	}
	p, err := l.part(index)
	if err != nil {
		return err
	}
	at := int64(p.offsets[index-p.first])
	if err := errors.Join(l.release(p.file), l.Close()); err != nil {
		return err
	}
	raw, err := disk.ReadFile(l.path(p.first))
	if err != nil {
		return err
	}
	_, value, err := parse(raw[at:])
	if err != nil {
		return err
	}
	change(value)
	record := raw[at : at+recordHead+int64(len(value))]
	binary.BigEndian.PutUint32(record[5:], sum(record[:5], value))
	f, err := disk.Files().OpenReadWrite(l.path(p.first), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	return errors.Join(writeAt(f, record, at), f.Sync(), f.Close())
}
