package replica

import (
	"sync"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
)

// What a tail holds at most of a shard's newest commits: what
// subscriptions that follow it are apart from one another. A record is smaller.
const (
	tailCommits = 256
	tailBytes   = 1 << 20
)

// tail is the newest commits that Commits has decoded: several subscriptions
// follow a shard, and each would decode the same. What is in it never changes,
// and its readers must not change it either.
type tail struct {
	mu      sync.Mutex // guards what follows
	first   uint64     // index of commits[0]
	commits []*ledgerv1.Commit
	sizes   []int // of the records
	bytes   int
}

// from returns the commits from an index on; none where it isn't held.
func (t *tail) from(index uint64) []*ledgerv1.Commit {
	t.mu.Lock()
	defer t.mu.Unlock()
	if index < t.first || index-t.first >= uint64(len(t.commits)) {
		return nil
	}
	return t.commits[index-t.first:]
}

// add takes a commit that was just decoded. One before those that are held, or
// among them, is somebody's who is behind; one beyond them begins a new tail.
func (t *tail) add(index uint64, c *ledgerv1.Commit, size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch next := t.first + uint64(len(t.commits)); {
	case index < next:
		return
	case index > next:
		t.first, t.commits, t.sizes, t.bytes = index, nil, nil, 0
	}
	t.commits, t.sizes, t.bytes = append(t.commits, c), append(t.sizes, size), t.bytes+size
	if len(t.commits) <= tailCommits && t.bytes <= tailBytes {
		return
	}
	// The older half goes, in arrays of their own: readers may hold these.
	old := 0
	for ; old < len(t.commits)-1 && (len(t.commits)-old > tailCommits/2 || t.bytes > tailBytes/2); old++ {
		t.bytes -= t.sizes[old]
	}
	t.first += uint64(old)
	t.commits = append(make([]*ledgerv1.Commit, 0, tailCommits), t.commits[old:]...)
	t.sizes = append(make([]int, 0, tailCommits), t.sizes[old:]...)
}
