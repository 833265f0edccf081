package tiles

import (
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// parsePath reads exactly what Path and EntriesPath return; a bundle of
// entries has level -1.
func parsePath(path string) (level int, n uint64, w int, ok bool) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return 0, 0, 0, false
	}
	if numbers, ok := strings.CutPrefix(rest, "entries/"); ok {
		rest = "data/" + numbers
	}
	t, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", height, rest))
	return t.L, uint64(t.N), t.W, err == nil
}

const (
	// height is a tile's height in levels and width its hashes, as tlog-tiles fixes them.
	height = 8
	width  = 1 << height
)

// Path returns the tlog-tiles path of a hash tile: "tile/<L>/<N>[.p/<W>]".
func Path(level int, n uint64, w int) string {
	return fmt.Sprintf("tile/%d/%s", level, suffix(n, w))
}

// EntriesPath returns the path of an entry bundle: "tile/entries/<N>[.p/<W>]".
func EntriesPath(n uint64, w int) string { return "tile/entries/" + suffix(n, w) }

// pathOf is Path, or of level -1 EntriesPath.
func pathOf(level int, n uint64, w int) string {
	if level < 0 {
		return EntriesPath(n, w)
	}
	return Path(level, n, w)
}

// suffix borrows tlog's x001/234 grouping, which tlog-tiles shares.
func suffix(n uint64, w int) string {
	p := tlog.Tile{H: height, L: 0, N: int64(n), W: w}.Path()
	return strings.TrimPrefix(p, fmt.Sprintf("tile/%d/0/", height))
}
