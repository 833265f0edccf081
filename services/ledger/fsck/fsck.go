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
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// Fault is one difference between what a data directory holds and what it
// should. It never quotes a payload.
type Fault struct {
	// Part is "store", "shard", "index", "tiles", "blocks", "checkpoint",
	// "last-signed" or "topic".
	Part string `json:"part"`
	// Place is where: a file and offset, "log/shard/index", a tile's path,
	// "height N", or "log/shard@offset" in a topic.
	Place string `json:"place"`
	// What is wrong there.
	What string `json:"what"`
}

// String is the fault in one line.
func (f Fault) String() string { return f.Part + " " + f.Place + ": " + f.What }

// Options say what is checked. DataDir is needed.
type Options struct {
	DataDir string
	// Verifiers are of the keys that checkpoints may be signed with. Without
	// any the signatures are not checked.
	Verifiers []note.Verifier
	// Topics returns the source of a shard's partition. Nil leaves the topics out.
	Topics func(log string, shard uint32) replica.Source
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
	Blocks  uint64   `json:"blocks"`
	Records uint64   `json:"records"` // of topics
}

// maxFaults bounds a report: after so many the point is made.
const maxFaults = 1000

// checker is one run.
type checker struct {
	opts   Options
	report Report
	stored *replica.Stored
	told   time.Time

	blocks  *tree // of blocks
	cursor  replica.Row
	texts   map[uint64][]byte // blocks' texts by height
	last    *receipt.Block
	shards  map[shardID]*shard
	current *shard
}

type shardID struct {
	log   string
	shard uint32
}

func (id shardID) String() string { return fmt.Sprintf("%s/%d", id.log, id.shard) }

// Check checks a data directory. The error is of what kept it from checking:
// no such directory, or a node that runs on it.
func Check(ctx context.Context, opts Options) (Report, error) {
	c := &checker{opts: opts, texts: map[uint64][]byte{}, shards: map[shardID]*shard{}}
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
		if strings.Contains(err.Error(), "lock") || strings.Contains(err.Error(), "temporarily unavailable") {
			return Report{}, fmt.Errorf("fsck: stop the node first: %w", err)
		}
		c.fault("store", "store", "it cannot be opened: %v", err)
		return c.report, nil
	}
	defer c.stored.Close()
	if err := c.rows(ctx); err != nil {
		if ctx.Err() != nil {
			return c.report, ctx.Err()
		}
		c.fault("store", "store", "rows cannot be read: %v", err)
	}
	c.checkBlocks()
	c.signatures()
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
	known := []string{"store", "tiles", "checkpoint", "last-signed"}
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

// signatures checks the signed checkpoint and the memory of the last one.
func (c *checker) signatures() {
	signed := c.read("checkpoint", "checkpoint")
	var cp receipt.Checkpoint
	if signed != nil {
		var ok bool
		if cp, ok = c.checkpoint(signed); ok {
			c.head("checkpoint", cp)
			c.sealedTiles(cp.Size)
		}
	} else if c.last != nil {
		c.fault("checkpoint", "checkpoint", "there is none, and blocks up to height %d", c.last.Height)
	}
	raw := c.read("last-signed", "last-signed")
	if raw == nil {
		if signed != nil {
			c.fault("last-signed", "last-signed", "there is none: a node without it may sign a second head of a size")
		}
		return
	}
	l, err := receipt.ParseCheckpoint(raw)
	switch {
	case err != nil:
		c.fault("last-signed", "last-signed", "%v", err)
		return
	case cp.Origin != "" && l.Origin != cp.Origin:
		c.fault("last-signed", "last-signed", "it is of another ledger than the checkpoint")
		return
	case l.Size < cp.Size:
		c.fault("last-signed", "last-signed", "it says %d and the checkpoint, signed later, %d", l.Size, cp.Size)
		return
	}
	c.head("last-signed", l)
}

// sealedTiles checks that the tiles of what a checkpoint seals were published
// before it, as they must be.
func (c *checker) sealedTiles(height uint64) {
	short := func(t *tree, size uint64) {
		if t.published < size {
			c.fault("tiles", path.Join(t.dir, "state"), "it says %d leaves and the checkpoint seals %d", t.published, size)
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
func (c *checker) head(part string, cp receipt.Checkpoint) {
	switch {
	case c.last != nil && cp.Origin != c.last.Origin:
		c.fault(part, part, "it is of another ledger than the blocks")
	case cp.Size > c.blocks.size:
		c.fault(part, part, "it is of %d blocks and the store holds %d", cp.Size, c.blocks.size)
	case c.blocks.rootAt(cp.Size) != cp.Root:
		c.fault(part, part, "its root is not that of the first %d blocks", cp.Size)
	}
}

// checkpoint reads a signed checkpoint, and verifies every signature if there
// are keys.
func (c *checker) checkpoint(signed []byte) (receipt.Checkpoint, bool) {
	bad := func(err error) (receipt.Checkpoint, bool) {
		c.fault("checkpoint", "checkpoint", "%v", err)
		return receipt.Checkpoint{}, false
	}
	text, _, ok := bytes.Cut(signed, []byte("\n\n"))
	if !ok {
		return bad(errors.New("it is no signed note"))
	}
	cp, err := receipt.ParseCheckpoint(append(text, '\n'))
	if err != nil {
		return bad(err)
	}
	if len(c.opts.Verifiers) == 0 {
		c.notice("the checkpoint's signatures were not checked: no verifier keys were given")
		return cp, true
	}
	n, err := note.Open(signed, note.VerifierList(c.opts.Verifiers...))
	if err != nil {
		return bad(err)
	}
	for _, s := range n.UnverifiedSigs {
		c.fault("checkpoint", "checkpoint", "a signature in the name of %q is by none of the given keys", s.Name)
	}
	for _, s := range n.Sigs {
		// Base64 has several spellings of one signature; a node writes one.
		if raw, err := base64.StdEncoding.DecodeString(s.Base64); err != nil || base64.StdEncoding.EncodeToString(raw) != s.Base64 {
			c.fault("checkpoint", "checkpoint", "a signature is not in canonical form")
		}
	}
	again, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs, UnverifiedSigs: n.UnverifiedSigs})
	if err != nil || !bytes.Equal(again, signed) {
		c.fault("checkpoint", "checkpoint", "it is not in canonical form")
	}
	return cp, true
}
