package tiles

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// A pack is one file for what would else be 32: of 4,096 leaves the 16 tiles of
// level 0, then their 16 bundles of entries, nothing between them. Publish
// makes one where it makes all of them durable at once and each entry is of a
// shard's size, so that every byte has its place; to make two files for 256
// leaves costs the kernel more than to copy their commits. A client sees no
// difference: ReadFile serves either form under the paths of tlog-tiles.
const (
	packTiles   = 16
	packLeaves  = packTiles * width
	tileBytes   = width * receipt.HashSize
	bundleBytes = width * (2 + receipt.EntrySize)
	packBytes   = packTiles * (tileBytes + bundleBytes)
)

// PackFolder is the folder of a tree's packs.
const PackFolder = "pack"

// PackSize is the length of a pack in bytes.
const PackSize = packBytes

// InPack returns where a full tile of level 0 would stand in a pack, or, of
// level -1, a full bundle.
func InPack(level int, n uint64) (path string, offset, size int64) {
	path, at := packPath(n/packTiles), int64(n%packTiles)
	if level < 0 {
		return path, packTiles*tileBytes + at*bundleBytes, bundleBytes
	}
	return path, at * tileBytes, tileBytes
}

// Whole returns the largest size up to the given one that ends with a pack: a
// tree that is published so leaves nothing that the next step writes again.
func Whole(size uint64) uint64 { return size / packLeaves * packLeaves }

func packPath(pack uint64) string { return PackFolder + "/" + suffix(pack, width) }

// readStored reads a tile, or of level -1 a bundle, in whichever form it is on
// disk. It also says where: the file, and in a pack the offset.
func (t *Tree) readStored(level int, n uint64, w int) (raw []byte, where string, err error) {
	where = pathOf(level, n, w)
	if level <= 0 && w == width {
		path, offset, size := InPack(level, n)
		raw, err = t.disk.readPart(filepath.Join(t.dir, filepath.FromSlash(path)), offset, size)
		if !IsNotExist(err) {
			return raw, fmt.Sprintf("%s (%s@%d)", where, path, offset), err
		}
	}
	raw, err = t.disk.ReadFile(filepath.Join(t.dir, filepath.FromSlash(where)))
	return raw, where, err
}

// readPart reads a part of a pack.
func (d Disk) readPart(path string, offset, size int64) ([]byte, error) {
	f, err := d.fs().Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != packBytes {
		return nil, fmt.Errorf("tiles: %s has %d bytes", path, info.Size())
	}
	raw := make([]byte, size)
	if n, err := f.ReadAt(raw, offset); n < len(raw) {
		return nil, fmt.Errorf("tiles: %s cannot be read at %d: %w", path, offset, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return raw, nil
}

// packed tells which packs a step from one size to another makes: of them
// nothing is on disk yet and all of it will be. The caller holds mu.
func (t *Tree) packed(from, to uint64) map[uint64][]byte {
	packs := map[uint64][]byte{}
	for p := (from + packLeaves - 1) / packLeaves; (p+1)*packLeaves <= to; p++ {
		fits := true
		for n := p * packTiles; n < (p+1)*packTiles; n++ {
			fits = fits && len(t.bundles[n-t.firstBundle]) == bundleBytes
		}
		if fits {
			packs[p] = make([]byte, packBytes)
		}
	}
	return packs
}

// dropOther removes what a crash left of a full tile and its bundle in the form
// that they do not have: before the state file named its size, the next step
// may have been another one. What is on disk has one form, which is looked at.
func (t *Tree) dropOther(n uint64, packed bool) {
	others := []string{packPath(n / packTiles)}
	switch {
	case packed:
		tile, bundle := Path(0, n, width), EntriesPath(n, width)
		others = []string{tile, tile + ".p", bundle, bundle + ".p"}
	case n%packTiles < packTiles-1:
		return // with the last
	}
	for _, path := range others {
		_ = t.disk.fs().RemoveAll(filepath.Join(t.dir, filepath.FromSlash(path)))
	}
}
