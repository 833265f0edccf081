// Package replica follows a ledger's topics, re-checks every record against
// core's rules, and keeps what it accepted: commits in segments that only
// grow, their index in a local store, leaves in tlog-tiles trees. It serves reads, proofs and live
// following from there, without Kafka.
//
// A replica trusts the topics for order only. It halts a shard, loudly and
// for good, when a record breaks a rule, when offsets have a gap, or when a
// record it already followed reads back differently; what it held before
// stays readable.
//
// What is durable when: Kafka holds every acknowledged commit, so following
// is not synced; Blocks syncs the commits, then the trees and the block, and
// only then signs. After a crash a replica re-reads what it had not synced.
package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/segments"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// Store is a node's local database of all its shards. Safe for concurrent use.
type Store struct {
	db *pebble.DB
	// disk is where the shards and blocks of this store keep their files.
	disk   tiles.Disk
	files  string // the folder of the database's files
	dir    string // of the commits
	log    *slog.Logger
	damage damage

	tableMu sync.Mutex // held while a table is written and taken

	mu      sync.Mutex // guards what follows
	logs    []*segments.Log
	flushes []func() error // of the indexes
}

// CommitsDir is the folder beside the store's that holds the commits.
const CommitsDir = "commits"

// format is the layout of a store and the commits beside it. The first kept
// commits in the store, under no format.
const format = "2"

var formatRow = []byte("\x00format")

// OpenStore opens or creates the store in dir and locks it against a second
// process.
func OpenStore(dir string, log *slog.Logger) (*Store, error) {
	return OpenStoreOn(tiles.Disk{}, dir, log)
}

// OpenStoreOn is OpenStore on a disk, on which the shards and blocks opened
// with this store keep their files too.
func OpenStoreOn(disk tiles.Disk, dir string, log *slog.Logger) (*Store, error) {
	dir = filepath.Clean(dir)
	s := &Store{
		disk: disk, files: dir, dir: filepath.Join(filepath.Dir(dir), CommitsDir), log: log,
		damage: damage{reused: map[string]bool{}},
	}
	if err := checkLogs(disk, dir); err != nil {
		return nil, err
	}
	opts := storeOptions(disk, log)
	defer opts.Cache.Unref()
	opts.EventListener = s.listener()
	var err error
	if s.db, err = open(dir, opts); err != nil {
		return nil, fmt.Errorf("replica: open the local store; where its files are damaged, delete the data directory and let it rebuild: %w", err)
	}
	err = s.claim()
	if err == nil {
		// What a crash left there the database has, or nobody needs.
		if err = s.fs().Remove(s.newTable()); tiles.IsNotExist(err) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(s.Damaged(), err, s.db.Close())
	}
	return s, nil
}

// errFormat refuses a store that another version of this program wrote.
var errFormat = errors.New("replica: the data directory was written by another version of the ledger node, in a layout that this one does not read: " +
	"delete it, but not the memory of what was signed; the replica fills it again from a peer or from Kafka")

// claim checks a store's format, or writes it to a store that is new.
func (s *Store) claim() error {
	found, err := rows{db: s.db}.get(formatRow)
	switch {
	case err != nil:
		return err
	case string(found) == format:
		return nil
	case found != nil:
		return errFormat
	}
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	if it.First() {
		return errFormat
	}
	if err := it.Error(); err != nil {
		return err
	}
	return s.db.Set(formatRow, []byte(format), pebble.Sync)
}

// commits opens the log of a shard's commits, which Close closes.
func (s *Store) commits(log string, shard uint32, outset uint64) (*segments.Log, error) {
	l, err := segments.OpenAt(s.disk, filepath.Join(s.dir, log, strconv.Itoa(int(shard))), outset)
	if err != nil {
		return nil, sound(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs = append(s.logs, l)
	return l, nil
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
		// Each table of a long history spans all keys, and what merges them
		// writes again what they were merged into before. A look-up seldom
		// comes to the store, and a filter spares it most of a table.
		L0CompactionThreshold: 12,
		L0StopWritesThreshold: 36,
	}
	for i := range opts.Levels {
		// Most lookups ask for a stream or request id that doesn't exist yet.
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return opts
}

// Close closes the store once nothing steps its shards any more.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, flush := range s.flushes {
		err = errors.Join(err, flush())
	}
	for _, l := range s.logs {
		err = errors.Join(err, l.Close())
	}
	s.logs, s.flushes = nil, nil
	return errors.Join(err, s.db.Close())
}

// Sync makes everything written so far durable: the commits before what was
// said of them.
func (s *Store) Sync() error {
	if err := s.syncCommits(); err != nil {
		return err
	}
	return s.db.LogData(nil, pebble.Sync)
}

// syncCommits makes all shards' commits durable.
func (s *Store) syncCommits() error {
	s.mu.Lock()
	logs := s.logs
	s.mu.Unlock()
	return s.disk.Together(len(logs), func(i int) error { return logs[i].Sync() })
}

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

// state is what a shard's follower resumes from: the mark of its commits.
type state struct {
	Next   uint64
	Term   uint64
	Owner  string
	Offset int64  // next Kafka offset to read
	Last   []byte // SHA-256 of the value at Offset-1
	// Hint is where a peer was in the topic, on a replica that has its commits
	// from there and has not read the topic yet.
	Hint int64
	// Unread are the records before Offset that this node's owner handed over
	// and that no audit compared with the topic yet.
	Unread []span
}

const (
	stateVersion = 1
	// unreadVersion is of a state that has Unread, behind all else: each span
	// as its offset, index and count.
	unreadVersion = 2
)

// marshal returns the state's one encoding: a version, numbers as unsigned
// varints, texts after their length.
func (st state) marshal() []byte {
	b := make([]byte, 0, 128)
	version := byte(stateVersion)
	if len(st.Unread) > 0 {
		version = unreadVersion
	}
	b = append(b, version)
	b = binary.AppendUvarint(b, st.Next)
	b = binary.AppendUvarint(b, st.Term)
	b = binary.AppendUvarint(b, uint64(st.Offset))
	b = binary.AppendUvarint(b, uint64(st.Hint))
	b = append(binary.AppendUvarint(b, uint64(len(st.Last))), st.Last...)
	b = append(binary.AppendUvarint(b, uint64(len(st.Owner))), st.Owner...)
	for _, e := range st.Unread {
		b = binary.AppendUvarint(b, uint64(e.offset))
		b = binary.AppendUvarint(b, e.index)
		b = binary.AppendUvarint(b, uint64(e.count))
	}
	return b
}

// parseState reads exactly what marshal writes.
func parseState(raw []byte) (st state, ok bool) {
	if len(raw) == 0 || raw[0] != stateVersion && raw[0] != unreadVersion {
		return st, false
	}
	rest, bad := raw[1:], false
	number := func() uint64 {
		n, size := binary.Uvarint(rest)
		if size <= 0 {
			bad, rest = true, nil
			return 0
		}
		rest = rest[size:]
		return n
	}
	text := func() []byte {
		n := number()
		if n > uint64(len(rest)) {
			bad, rest = true, nil
			return nil
		}
		t := rest[:n]
		rest = rest[n:]
		return t
	}
	st.Next, st.Term, st.Offset, st.Hint = number(), number(), int64(number()), int64(number())
	if last := text(); len(last) > 0 {
		st.Last = bytes.Clone(last)
	}
	st.Owner = string(text())
	for raw[0] == unreadVersion && len(rest) > 0 && len(st.Unread) < mostSpans {
		st.Unread = append(st.Unread, span{int64(number()), number(), int64(number())})
	}
	return st, !bad && len(rest) == 0 && bytes.Equal(st.marshal(), raw)
}

var errDamaged = errors.New("replica: the local store is damaged; stop the node, delete its data directory and let it rebuild")

// sound is errDamaged for what the segments found damaged.
func sound(err error) error {
	if errors.Is(err, segments.ErrDamaged) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}

// decode reads a stored commit.
func decode(value []byte) (*ledgerv1.Commit, error) {
	c := &ledgerv1.Commit{}
	if proto.Unmarshal(value, c) != nil {
		return nil, errDamaged
	}
	return c, nil
}
