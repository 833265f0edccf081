//go:build !linux

package tiles

import "github.com/cockroachdb/pebble/v2/vfs"

// Leave does nothing where the system takes no such advice.
func Leave(vfs.File, int64, int64) {}
