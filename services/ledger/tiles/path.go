package tiles

import (
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

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

// suffix borrows tlog's x001/234 grouping, which tlog-tiles shares.
func suffix(n uint64, w int) string {
	p := tlog.Tile{H: height, L: 0, N: int64(n), W: w}.Path()
	return strings.TrimPrefix(p, fmt.Sprintf("tile/%d/0/", height))
}
