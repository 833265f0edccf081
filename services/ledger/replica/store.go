// Package replica follows a ledger's topics, re-checks every record against
// core's rules, and keeps what it accepted: commit bodies and their indexes in
// a local store, leaves in tlog-tiles trees. It serves reads, proofs and live
// following from there, without Kafka.
//
// A replica trusts the topics for order only. It halts a shard, loudly and
// for good, when a record breaks a rule, when offsets have a gap, or when a
// record it already followed reads back differently; what it held before
// stays readable.
//
// What is durable when: Kafka holds every acknowledged commit, so following
// is not synced; Blocks syncs the store, then the trees, then the block, and
// only then signs. After a crash a replica re-reads what it had not synced.
package replica

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// Store is a node's local database of all its shards. Safe for concurrent use.
type Store struct {
	db *pebble.DB
	// disk is where the shards and blocks of this store keep their files.
	disk   tiles.Disk
	dir    string
	log    *slog.Logger
	damage damage
}

// OpenStore opens or creates the store in dir and locks it against a second
// process.
func OpenStore(dir string, log *slog.Logger) (*Store, error) {
	return OpenStoreOn(tiles.Disk{}, dir, log)
}

// OpenStoreOn is OpenStore on a disk, on which the shards and blocks opened
// with this store keep their files too.
func OpenStoreOn(disk tiles.Disk, dir string, log *slog.Logger) (*Store, error) {
	s := &Store{disk: disk, dir: filepath.Clean(dir), log: log, damage: damage{reused: map[string]bool{}}}
	if err := checkLogs(disk, s.dir); err != nil {
		return nil, err
	}
	opts := storeOptions(disk, log)
	defer opts.Cache.Unref()
	opts.EventListener = s.listener()
	var err error
	if s.db, err = open(s.dir, opts); err != nil {
		return nil, fmt.Errorf("replica: open the local store; where its files are damaged, delete the data directory and let it rebuild: %w", err)
	}
	return s, nil
}

// storeOptions are every store's; the caller gives its reference to the cache back.
func storeOptions(disk tiles.Disk, log *slog.Logger) *pebble.Options {
	opts := &pebble.Options{
		FS:           disk.FS,
		Cache:        pebble.NewCache(64 << 20),
		MemTableSize: 32 << 20,
		Logger:       quietLogger{log},
		// A compaction changes files at a moment of its own choosing.
		DisableAutomaticCompactions: disk.Serial,
	}
	for i := range opts.Levels {
		// Most lookups ask for a stream or request id that doesn't exist yet.
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return opts
}

// Close closes the store; what was not synced may be lost, which is harmless.
func (s *Store) Close() error { return s.db.Close() }

// Sync makes everything written so far durable.
func (s *Store) Sync() error { return s.db.LogData(nil, pebble.Sync) }

// quietLogger keeps the database's chatter at debug level. Its messages name
// files and sizes, never keys or values.
type quietLogger struct{ log *slog.Logger }

func (l quietLogger) Infof(format string, args ...any) {
	l.log.LogAttrs(context.Background(), slog.LevelDebug, "store", slog.String("message", fmt.Sprintf(format, args...)))
}

func (l quietLogger) Errorf(format string, args ...any) {
	l.log.LogAttrs(context.Background(), slog.LevelError, "store", slog.String("message", fmt.Sprintf(format, args...)))
}

func (l quietLogger) Fatalf(format string, args ...any) {
	// The database calls this where it cannot go on, and must not return.
	panic("replica: local store failed: " + fmt.Sprintf(format, args...))
}

// Keys are a shard's prefix, a kind and the kind's own key.
const (
	kindHead    = 'h' // → state, JSON
	kindBody    = 'b' // index → record value
	kindLast    = 'l' // stream → last revision
	kindStream  = 's' // stream, NUL, first revision → index, write, count
	kindRequest = 'q' // request id → index, digest
)

// rows is one shard's part of the store.
type rows struct {
	db     *pebble.DB
	prefix []byte
}

func (s *Store) rows(log string, shard uint32) rows {
	return rows{db: s.db, prefix: shardPrefix(log, shard)}
}

func shardPrefix(log string, shard uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte(log+"\x00"), shard)
}

func (r rows) key(kind byte, parts ...[]byte) []byte {
	k := make([]byte, 0, len(r.prefix)+64)
	k = append(append(k, r.prefix...), kind)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// get returns a copy of a value, nil when there is none.
func (r rows) get(key []byte) ([]byte, error) {
	v, closer, err := r.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte{}, v...), nil
}

// state is what a shard's follower resumes from.
type state struct {
	Next   uint64 `json:"next"`
	Term   uint64 `json:"term"`
	Owner  string `json:"owner"`
	Offset int64  `json:"offset"` // next Kafka offset to read
	Last   []byte `json:"last"`   // SHA-256 of the value at Offset-1
	// Hint is where a peer was in the topic, on a replica that has its commits
	// from there and has not read the topic yet.
	Hint int64 `json:"hint,omitempty"`
}

func (r rows) state() (state, error) {
	var st state
	raw, err := r.get(r.key(kindHead))
	if err != nil || raw == nil {
		return st, err
	}
	return st, json.Unmarshal(raw, &st)
}

func (r rows) putState(b *pebble.Batch, st state) error {
	raw, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return b.Set(r.key(kindHead), raw, nil)
}

// putCommit adds an accepted commit's rows to a batch.
func (r rows) putCommit(b *pebble.Batch, c *ledgerv1.Commit, seen core.Seen, value []byte) error {
	index := be64(seen.Index)
	err := errors.Join(
		b.Set(r.key(kindBody, index), value, nil),
		b.Set(r.key(kindRequest, []byte(c.RequestId)), append(index, seen.Digest[:]...), nil),
	)
	for i, w := range c.Writes {
		at := binary.BigEndian.AppendUint32(be64(seen.Index), uint32(i))
		at = binary.BigEndian.AppendUint32(at, uint32(len(w.Events)))
		err = errors.Join(err,
			b.Set(r.key(kindLast, []byte(w.Stream)), be64(seen.Revisions[i]), nil),
			b.Set(r.key(kindStream, []byte(w.Stream), []byte{0}, be64(w.FirstRevision)), at, nil),
		)
	}
	return err
}

// LastRevision implements core.View.
func (r rows) LastRevision(stream string) (int64, error) {
	v, err := r.get(r.key(kindLast, []byte(stream)))
	if err != nil {
		return 0, err
	}
	if v == nil {
		return core.NoStream, nil
	}
	if len(v) != 8 {
		return 0, errDamaged
	}
	return int64(binary.BigEndian.Uint64(v)), nil
}

// Request implements core.View.
func (r rows) Request(id string) (core.Seen, bool, error) {
	v, err := r.get(r.key(kindRequest, []byte(id)))
	if err != nil || v == nil {
		return core.Seen{}, false, err
	}
	if len(v) != 40 {
		return core.Seen{}, false, errDamaged
	}
	seen := core.Seen{Index: binary.BigEndian.Uint64(v), Digest: [32]byte(v[8:])}
	value, c, err := r.commit(seen.Index)
	if err != nil {
		return core.Seen{}, false, err
	}
	seen.Entry = receipt.Entry(value)
	seen.Recorded = c.RecordedTime.AsTime()
	for _, w := range c.Writes {
		seen.Revisions = append(seen.Revisions, w.FirstRevision+uint64(len(w.Events))-1)
	}
	return seen, true, nil
}

var errDamaged = errors.New("replica: the local store is damaged; stop the node, delete its data directory and let it rebuild")

// commit returns a commit's record value and its decoding.
func (r rows) commit(index uint64) ([]byte, *ledgerv1.Commit, error) {
	value, err := r.get(r.key(kindBody, be64(index)))
	if err != nil {
		return nil, nil, err
	}
	c := &ledgerv1.Commit{}
	if value == nil || proto.Unmarshal(value, c) != nil {
		return nil, nil, errDamaged
	}
	return value, c, nil
}

// eachBody calls visit with the record values from an index up to but not
// including another, in order; value is only valid during the call.
func (r rows) eachBody(from, to uint64, visit func(index uint64, value []byte) (more bool, err error)) error {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: r.key(kindBody, be64(from)), UpperBound: r.key(kindBody, be64(to))})
	if err != nil {
		return err
	}
	defer it.Close()
	index := from
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if k := it.Key(); binary.BigEndian.Uint64(k[len(k)-8:]) != index {
			return errDamaged
		}
		more, err := visit(index, value)
		if err != nil || !more {
			return err
		}
		index++
	}
	if err := it.Error(); err != nil {
		return err
	}
	if index != to {
		return errDamaged
	}
	return nil
}

// extent is where a commit's events of one stream are.
type extent struct {
	first uint64 // first revision
	index uint64 // commit
	write int    // which of its writes
	count int
}

// eachExtent calls visit with a stream's extents from the one that holds
// revision from on, in order.
func (r rows) eachExtent(stream string, from uint64, visit func(extent) (more bool, err error)) error {
	lower := r.key(kindStream, []byte(stream), []byte{0})
	upper := r.key(kindStream, []byte(stream), []byte{1})
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer it.Close()
	ok := it.SeekLT(append(append([]byte{}, lower...), be64(from+1)...))
	if !ok {
		ok = it.First()
	}
	for ; ok; ok = it.Next() {
		k := it.Key()
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if len(v) != 16 || len(k) < 8 {
			return errDamaged
		}
		e := extent{
			first: binary.BigEndian.Uint64(k[len(k)-8:]),
			index: binary.BigEndian.Uint64(v),
			write: int(binary.BigEndian.Uint32(v[8:])),
			count: int(binary.BigEndian.Uint32(v[12:])),
		}
		more, err := visit(e)
		if err != nil || !more {
			return err
		}
	}
	return it.Error()
}
