package tiles

import (
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// Leave tells the system that nobody will read a part of a file soon. What of
// it is durable then leaves the page cache.
func Leave(f vfs.File, from, to int64) {
	if fd := f.Fd(); fd != vfs.InvalidFd && from < to {
		// It is advice: without it the pages stay.
		_ = unix.Fadvise(int(fd), from, to-from, unix.FADV_DONTNEED)
	}
}
