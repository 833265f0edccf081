// Package fsck checks a ledger node's data directory while no node runs on
// it: the store's files, its rows, the tiles, the blocks and the signatures,
// each against the others, and all of them against the topics where those are
// given. It derives everything again from the commits' bytes and names every
// difference by its position. It writes nothing and repairs nothing: a
// replica that is damaged is deleted and rebuilt from Kafka or its peers.
package fsck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// Fault is one difference between what a data directory holds and what it
// should. It never quotes a payload.
type Fault struct {
	// Part is "store", "commits", "shard", "index", "tiles", "blocks", "checkpoint",
	// "last-signed", "topic" or "view".
	Part string `json:"part"`
	// Place is where: a file and offset, "log/shard/index", a tile's path,
	// "height N", "log/shard@offset" in a topic, or "name log/shard key" in a view.
	Place string `json:"place"`
	// What is wrong there.
	What string `json:"what"`
}

// String is the fault in one line.
func (f Fault) String() string { return f.Part + " " + f.Place + ": " + f.What }

// Options say what is checked. DataDir is needed.
type Options struct {
	DataDir string
	// SignedDir holds the memory of what was signed; empty is DataDir with "-signed".
	SignedDir string
	// Policy is whom to believe. Without one the stored policy is believed.
	Policy receipt.Policy
	// Topics returns the source of a shard's partition. Nil leaves the topics out.
	Topics func(log string, shard uint32) replica.Source
	// Views are the read models to compare with the commits.
	Views []View
	// Progress is called now and then with what is being checked.
	Progress func(what string)
}

// Report is what a check found.
type Report struct {
	Faults []Fault `json:"faults"`
	// Truncated tells that there are more faults than are listed.
	Truncated bool `json:"truncated,omitempty"`
	// Notices say what was not checked, and why.
	Notices []string `json:"notices,omitempty"`
	Commits uint64   `json:"commits"`
	// Rows counts the index rows that stand in place of commits, on a replica
	// that began with them.
	Rows    uint64 `json:"rows,omitempty"`
	Blocks  uint64 `json:"blocks"`
	Records uint64 `json:"records"` // of topics
}

// maxFaults bounds a report: after so many the point is made.
const maxFaults = 1000

// checker is one run.
type checker struct {
	opts   Options
	report Report
	stored *replica.Stored
	told   time.Time

	formatted bool  // the store says that it is of this layout
	blocks    *tree // of blocks
	cursor    replica.Row
	policy    receipt.Policy // as stored
	final     []byte         // checkpoint
	evidence  [][]byte
	last      *receipt.Block
	shards    map[shardID]*shard
	current   *shard
}

type shardID struct {
	log   string
	shard uint32
}

func (id shardID) String() string { return fmt.Sprintf("%s/%d", id.log, id.shard) }

// Check checks a data directory. The error is of what kept it from checking:
// no such directory, or a node that runs on it.
func Check(ctx context.Context, opts Options) (Report, error) {
	if opts.SignedDir == "" {
		opts.SignedDir = opts.DataDir + "-signed"
	}
	c := &checker{opts: opts, shards: map[shardID]*shard{}}
	store := filepath.Join(opts.DataDir, "store")
	if _, err := os.Stat(store); err != nil {
		return Report{}, fmt.Errorf("fsck: no ledger node's data directory: %w", err)
	}
	files, err := replica.CheckStoreFiles(store)
	if err != nil {
		return Report{}, err
	}
	for _, f := range files {
		place := path.Join("store", f.File)
		if f.Offset >= 0 {
			place = fmt.Sprintf("%s@%d", place, f.Offset)
		}
		c.fault("store", place, "%s", f.What)
	}
	c.list()
	if c.stored, err = replica.OpenStored(store); err != nil {
		if strings.Contains(err.Error(), "lock held") || strings.Contains(err.Error(), "temporarily unavailable") {
			return Report{}, fmt.Errorf("fsck: stop the node first: %w", err)
		}
		c.fault("store", "store", "it cannot be opened: %v", err)
		return c.report, nil
	}
	defer func() { _ = c.stored.Close() }() // opened to be read only
	if err := c.rows(ctx); err != nil {
		if ctx.Err() != nil {
			return c.report, ctx.Err()
		}
		c.fault("store", "store", "rows cannot be read: %v", err)
	}
	c.checkBlocks()
	c.signatures()
	for _, v := range opts.Views {
		if err := c.view(ctx, v); err != nil {
			return c.report, err
		}
	}
	if opts.Topics == nil {
		c.notice("the topics were not checked: no brokers were given")
	} else if err := c.topics(ctx); err != nil {
		return c.report, err
	}
	return c.report, nil
}

func (c *checker) fault(part, place, format string, args ...any) {
	if len(c.report.Faults) >= maxFaults {
		c.report.Truncated = true
		return
	}
	c.report.Faults = append(c.report.Faults, Fault{part, place, fmt.Sprintf(format, args...)})
}

func (c *checker) notice(format string, args ...any) {
	c.report.Notices = append(c.report.Notices, fmt.Sprintf(format, args...))
}

// tell reports progress, not more than a few times a second.
func (c *checker) tell(format string, args ...any) {
	if c.opts.Progress != nil && time.Since(c.told) > 200*time.Millisecond {
		c.told = time.Now()
		c.opts.Progress(fmt.Sprintf(format, args...))
	}
}

// list names what the data directory holds besides what is checked.
func (c *checker) list() {
	entries, err := os.ReadDir(c.opts.DataDir)
	if err != nil {
		c.fault("store", ".", "%v", err)
		return
	}
	known := []string{"store", replica.CommitsDir, "tiles"}
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) {
			c.notice("%s is not part of the replica and was not checked", e.Name())
		}
	}
}

// read returns a file below the data directory, nil if there is none.
func (c *checker) read(part, name string) []byte {
	raw, err := os.ReadFile(filepath.Join(c.opts.DataDir, filepath.FromSlash(name)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.fault(part, name, "%v", err)
	}
	return raw
}

// signatures checks the final checkpoint, the memory of what was signed, and
// evidence.
func (c *checker) signatures() {
	if c.final != nil {
		cp, cosignatures, err := c.policy.Cosignatures(c.final)
		if err == nil {
			_, _, err = c.policy.OpenCheckpoint(c.final)
		}
		if err == nil {
			var lines []string
			for _, s := range cosignatures {
				lines = append(lines, s.Line)
			}
			if !bytes.Equal(cp.Note(lines...), c.final) {
				err = errors.New("a signature on it is by no cosigner of its policy, or not in canonical form")
			}
		}
		if err != nil {
			c.fault("checkpoint", "final", "%v", err)
		} else {
			c.head("checkpoint", "final", cp)
			c.sealedTiles(cp.Size)
		}
	}
	for i, document := range c.evidence {
		if found, err := receipt.VerifyEvidence(document, c.policy); err != nil {
			c.fault("blocks", fmt.Sprintf("evidence %d", i+1), "%v", err)
		} else {
			c.notice("there is evidence of %s at %s", found.Wrong, found.Place)
		}
	}
	c.memory()
}

// memory checks what the node remembers of its own signatures.
func (c *checker) memory() {
	read := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join(c.opts.SignedDir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.fault("last-signed", name, "%v", err)
		}
		return raw
	}
	if raw := read("highest-seen"); raw != nil {
		if _, err := replica.ParseHighestSeen(raw); err != nil {
			c.fault("last-signed", "highest-seen", "%v", err)
		}
	}
	raw := read("last-signed")
	if raw == nil {
		c.notice("there is no last-signed in %s: right for a node that cosigns nothing; one that does may sign a second head of a size", c.opts.SignedDir)
		return
	}
	l, _, err := replica.ParseLastSigned(raw)
	if err != nil {
		c.fault("last-signed", "last-signed", "%v", err)
		return
	}
	c.head("last-signed", "last-signed", l)
	c.sealedTiles(l.Size)
}

// sealedTiles checks that the tiles of what a checkpoint seals were published,
// as they are by a node that stops cleanly.
func (c *checker) sealedTiles(height uint64) {
	short := func(t *tree, size uint64) {
		if t.published < size {
			c.fault("tiles", path.Join(t.dir, "state"), "it says %d leaves and what was signed seals %d, or the node did not stop cleanly: then start and stop it before checking", t.published, size)
		}
	}
	short(c.blocks, height)
	for _, s := range c.shards {
		var size uint64
		for _, at := range s.sealed {
			if at.height <= height {
				size = at.head.Size
			}
		}
		short(s.tree, size)
	}
}

// head compares a tree head with the tree of blocks.
func (c *checker) head(part, place string, cp receipt.Checkpoint) {
	switch {
	case c.last != nil && cp.Origin != c.last.Origin:
		c.fault(part, place, "it is of another ledger than the blocks")
	case cp.Size > c.blocks.size:
		c.fault(part, place, "it is of %d blocks and the store holds %d", cp.Size, c.blocks.size)
	case c.blocks.rootAt(cp.Size) != cp.Root:
		c.fault(part, place, "its root is not that of the first %d blocks", cp.Size)
	}
}
