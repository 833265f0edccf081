package replica

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/segments"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// Stored is a node's store while no node runs on it, opened to be examined:
// nothing is written. It shows rows as they are, right or wrong.
type Stored struct {
	db      *pebble.DB
	rows    rows
	commits string // their folder
	logs    map[string]*segments.Log
}

// OpenStored opens the store in dir. It fails while a node has it open.
func OpenStored(dir string) (*Stored, error) {
	opts := storeOptions(tiles.Disk{}, slog.New(slog.DiscardHandler))
	defer opts.Cache.Unref()
	opts.ReadOnly = true
	opts.ErrorIfNotExists = true
	// Damage is the caller's to hear of, as the error of what met it; by
	// default it ends the process, and statistics would meet it unasked.
	opts.EventListener = &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}}
	opts.DisableTableStats = true
	db, err := open(dir, opts)
	if err != nil {
		return nil, err
	}
	return &Stored{
		db: db, rows: rows{db: db}, commits: filepath.Join(filepath.Dir(filepath.Clean(dir)), CommitsDir), logs: map[string]*segments.Log{},
	}, nil
}

// open opens a database that may be damaged in any way, which the database's
// code answers with a panic in places.
func open(dir string, opts *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("replica: the store cannot be read: %v", p)
		}
	}()
	return pebble.Open(dir, opts)
}

// Close closes the store.
func (s *Stored) Close() error { return s.db.Close() }

// RowKind says what a row is.
type RowKind int

// The kinds.
const (
	RowUnknown  RowKind = iota // no row that a node writes
	RowFormat                  // the layout this version writes
	RowIndexed                 // Next: how many commits the index has
	RowExtent                  // Stream, Revision → Index, Write, Count
	RowRequest                 // Request → Index
	RowBlock                   // Height → Value, a block's text
	RowCursor                  // Next, Height, Policies: how far the block log was followed
	RowPolicy                  // Policies, a version's number → Value, its note
	RowStates                  // States: compact ranges over the shards' index rows
	RowFinal                   // Value, the newest final checkpoint's note
	RowEvidence                // Value, an evidence document
	RowOutset                  // Index: the first commit whose body is held
	RowCommit                  // Index → Value, the index row of a commit below that
)

// Row is one row of a store. Which fields a row has depends on its kind.
type Row struct {
	Kind  RowKind
	Key   []byte
	Value []byte

	Log   string
	Shard uint32

	Index    uint64
	Stream   string
	Revision uint64
	Write    int
	Count    int
	Request  string
	Height   uint64
	Next     uint64
	Policies uint64
	States   []SealedState
}

// SealedState is the compact range over a shard's index rows at the size that
// the newest block seals.
type SealedState struct {
	Log   string
	Shard uint32
	Size  uint64
	Nodes [][]byte
}

// ShardState is where a shard's follower stood.
type ShardState struct {
	Next   uint64 // index of the next commit
	Term   uint64
	Owner  string
	Offset int64  // next Kafka offset
	Last   []byte // SHA-256 of the record's value at Offset-1
	Hint   int64  // where a peer was in the topic, before this replica read it
}

// Rows calls visit with every row in the order of keys: the blocks' first,
// then shard by shard how far its index goes, requests and extents. A row's
// slices are only valid during the call.
func (s *Stored) Rows(visit func(Row) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("replica: the store cannot be read: %v", p)
		}
	}()
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := visit(parseRow(it.Key(), value)); err != nil {
			return err
		}
	}
	return it.Error()
}

// parseRow reads a row; what a node would not have written is RowUnknown.
func parseRow(key, value []byte) Row {
	r := Row{Key: key, Value: value}
	if rest, ok := bytes.CutPrefix(key, []byte(blockRows)); ok {
		var c cursor
		var states []sealedState
		switch {
		case len(rest) == 9 && rest[0] == '/':
			r.Kind, r.Height = RowBlock, binary.BigEndian.Uint64(rest[1:])
		case bytes.Equal(key, blockCursor) && canonical(value, &c):
			r.Kind, r.Next, r.Height, r.Policies = RowCursor, c.Next, c.Height, c.Policies
		case len(key) == len(policyKey(0)) && bytes.HasPrefix(key, policyKey(0)[:len(key)-8]):
			r.Kind, r.Policies = RowPolicy, binary.BigEndian.Uint64(key[len(key)-8:])
		case bytes.Equal(key, finalNote):
			r.Kind = RowFinal
		case bytes.Equal(key, blockStates) && canonical(value, &states):
			r.Kind = RowStates
			for _, st := range states {
				r.States = append(r.States, SealedState(st))
			}
		}
		return r
	}
	if bytes.Equal(key, formatRow) && string(value) == format {
		r.Kind = RowFormat
		return r
	}
	if bytes.HasPrefix(key, []byte(evidenceRows)) {
		r.Kind = RowEvidence
		return r
	}
	log, rest, ok := bytes.Cut(key, []byte{0})
	if !ok || len(rest) < 5 {
		return r
	}
	r.Log, r.Shard = string(log), binary.BigEndian.Uint32(rest)
	kind, rest := rest[4], rest[5:]
	switch kind {
	case kindIndexed:
		if len(rest) == 0 && len(value) == 8 {
			r.Kind, r.Next = RowIndexed, binary.BigEndian.Uint64(value)
		}
	case kindOutset:
		if len(rest) == 0 && len(value) == 8 {
			r.Kind, r.Index = RowOutset, binary.BigEndian.Uint64(value)
		}
	case kindRow:
		if _, err := core.ParseRow(value); err == nil && len(rest) == 8 {
			r.Kind, r.Index = RowCommit, binary.BigEndian.Uint64(rest)
		}
	case kindRequest:
		if at, size := binary.Uvarint(value); size > 0 && bytes.Equal(binary.AppendUvarint(nil, at), value) {
			r.Kind, r.Request, r.Index = RowRequest, string(rest), at
		}
	case kindStream:
		n := len(rest) - 9
		if n < 0 || rest[n] != 0 {
			return r
		}
		if e, ok := parseExtent(binary.BigEndian.Uint64(rest[n+1:]), value); ok {
			r.Kind, r.Stream, r.Revision = RowExtent, string(rest[:n]), e.first
			r.Index, r.Write, r.Count = e.index, e.write, e.count
		}
	}
	return r
}

// canonical reads JSON that is spelled as this package writes it.
func canonical[T any](raw []byte, into *T) bool {
	if json.Unmarshal(raw, into) != nil {
		return false
	}
	again, err := json.Marshal(*into)
	return err == nil && bytes.Equal(again, raw)
}

// RequestRow returns a request id's row.
func (s *Stored) RequestRow(log string, shard uint32, id string) (Row, error) {
	return s.row(log, shard, kindRequest, []byte(id))
}

// ExtentRow returns the row of a stream's extent that begins with a revision.
func (s *Stored) ExtentRow(log string, shard uint32, stream string, first uint64) (Row, error) {
	return s.row(log, shard, kindStream, []byte(stream), []byte{0}, be64(first))
}

func (s *Stored) row(log string, shard uint32, kind byte, parts ...[]byte) (Row, error) {
	key := (rows{prefix: shardPrefix(log, shard)}).key(kind, parts...)
	value, err := s.rows.get(key)
	if err != nil || value == nil {
		return Row{}, err
	}
	return parseRow(key, value), nil
}

// Block returns the text of the block at a height, nil if there is none.
func (s *Stored) Block(height uint64) ([]byte, error) { return s.rows.get(blockKey(height)) }

// ShardName is a shard whose commits are stored.
type ShardName struct {
	Log   string
	Shard uint32
}

// Shards returns the shards that have a folder of commits, in order, and the
// names of folders and files among them that belong to no shard.
func (s *Stored) Shards() (shards []ShardName, strange []string, err error) {
	logs, err := os.ReadDir(s.commits)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, l := range logs {
		if !l.IsDir() || !core.ValidLog(l.Name()) {
			strange = append(strange, l.Name())
			continue
		}
		entries, err := os.ReadDir(filepath.Join(s.commits, l.Name()))
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			n, err := strconv.ParseUint(e.Name(), 10, 32)
			if err != nil || !e.IsDir() || strconv.FormatUint(n, 10) != e.Name() {
				strange = append(strange, l.Name()+"/"+e.Name())
				continue
			}
			shards = append(shards, ShardName{l.Name(), uint32(n)})
		}
	}
	slices.SortFunc(shards, func(a, b ShardName) int {
		return cmp.Or(strings.Compare(a.Log, b.Log), cmp.Compare(a.Shard, b.Shard))
	})
	return shards, strange, nil
}

func (s *Stored) log(log string, shard uint32) (*segments.Log, error) {
	dir := filepath.Join(s.commits, log, strconv.Itoa(int(shard)))
	if l := s.logs[dir]; l != nil {
		return l, nil
	}
	outset, err := s.Outset(log, shard)
	if err != nil {
		return nil, err
	}
	l, err := segments.OpenAt(tiles.Disk{}, dir, outset)
	if err == nil {
		s.logs[dir] = l
	}
	return l, err
}

// CheckCommits verifies the files of a shard's commits one by one, to the
// last byte.
func (s *Stored) CheckCommits(log string, shard uint32) ([]segments.Fault, error) {
	outset, err := s.Outset(log, shard)
	if err != nil {
		return nil, err
	}
	return segments.CheckAt(tiles.Disk{}, filepath.Join(s.commits, log, strconv.Itoa(int(shard))), outset)
}

// Indexed returns how many of a shard's commits the index has.
func (s *Stored) Indexed(log string, shard uint32) (uint64, error) {
	return (rows{db: s.db, prefix: shardPrefix(log, shard)}).indexed()
}

// State returns where a shard's follower stood, nil where it never stood
// anywhere.
func (s *Stored) State(log string, shard uint32) (*ShardState, error) {
	l, err := s.log(log, shard)
	if err != nil || l.Mark() == nil {
		return nil, err
	}
	st, ok := parseState(l.Mark())
	if !ok {
		return nil, errors.New("replica: the mark of the commits is malformed")
	}
	return &ShardState{Next: st.Next, Term: st.Term, Owner: st.Owner, Offset: st.Offset, Last: st.Last, Hint: st.Hint}, nil
}

// Outset returns the index of the first commit whose body a shard holds: 0 but
// on a replica that began with index rows.
func (s *Stored) Outset(log string, shard uint32) (uint64, error) {
	return (rows{db: s.db, prefix: shardPrefix(log, shard)}).outset()
}

// IndexRows calls visit with the rows that a shard holds in place of bodies, in
// order.
func (s *Stored) IndexRows(log string, shard uint32, visit func(index uint64, row core.Row) error) error {
	r := rows{db: s.db, prefix: shardPrefix(log, shard)}
	outset, err := r.outset()
	if err != nil {
		return err
	}
	for index := range outset {
		row, err := r.row(index)
		if err != nil {
			return err
		}
		if err := visit(index, row); err != nil {
			return err
		}
	}
	return nil
}

// IndexRow returns the row that stands in place of a commit's body; false where
// a body does.
func (s *Stored) IndexRow(log string, shard uint32, index uint64) (core.Row, bool, error) {
	r := rows{db: s.db, prefix: shardPrefix(log, shard)}
	outset, err := r.outset()
	if err != nil || index >= outset {
		return core.Row{}, false, err
	}
	row, err := r.row(index)
	return row, err == nil, err
}

// Commits calls visit with a shard's commits in order, as far as they can be
// read; value is only valid during the call.
func (s *Stored) Commits(log string, shard uint32, visit func(index uint64, value []byte) error) error {
	l, err := s.log(log, shard)
	if err != nil {
		return err
	}
	outset, err := s.Outset(log, shard)
	if err != nil {
		return err
	}
	return l.Each(outset, l.Count(), func(index uint64, value []byte) (bool, error) { return true, visit(index, value) })
}

// Body returns a commit's record, nil if there is none.
func (s *Stored) Body(log string, shard uint32, index uint64) ([]byte, error) {
	l, err := s.log(log, shard)
	if err != nil || index >= l.Count() {
		return nil, err
	}
	if outset, err := s.Outset(log, shard); err != nil || index < outset {
		return nil, err
	}
	return l.Commit(index)
}

// FileFault is damage of a store's file that shows without reading rows.
type FileFault struct {
	File   string
	Offset int64 // -1 where it isn't known
	What   string
}

// CheckStoreFiles verifies the store's files one by one, whatever the
// database itself would read of them or forgive: every block of every table,
// every chunk of the write-ahead logs and manifests to the file's last byte.
// Files that the database doesn't know are faults as well.
func CheckStoreFiles(dir string) ([]FileFault, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	opts := storeOptions(tiles.Disk{FS: vfs.Default}, slog.New(slog.DiscardHandler))
	defer opts.Cache.Unref()
	opts.EnsureDefaults()
	var out []FileFault
	fault := func(file string, offset int64, format string, args ...any) {
		out = append(out, FileFault{file, offset, fmt.Sprintf(format, args...)})
	}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, name)
		switch {
		case e.IsDir():
			fault(name, -1, "a folder that the store doesn't have")
		case strings.HasSuffix(name, ".sst"):
			if err := checkTable(vfs.Default, path, opts); err != nil {
				fault(name, -1, "%v", err)
			}
		case strings.HasSuffix(name, ".log"):
			number, err := strconv.ParseUint(strings.TrimSuffix(name, ".log"), 10, 32)
			raw, err2 := os.ReadFile(path)
			if err := errors.Join(err, err2); err != nil {
				fault(name, -1, "%v", err)
				continue
			}
			if at, what := checkChunks(raw, uint32(number)); what != "" {
				fault(name, at, "%s", what)
			}
		case strings.HasPrefix(name, "MANIFEST-"):
			raw, err := os.ReadFile(path)
			if err != nil {
				fault(name, -1, "%v", err)
				continue
			}
			if at, what := checkChunks(raw, 0); what != "" {
				fault(name, at, "%s", what)
			}
		case strings.HasPrefix(name, "OPTIONS-"):
			raw, err := os.ReadFile(path)
			if err != nil {
				fault(name, -1, "%v", err)
				continue
			}
			if at := differs(raw, []byte(opts.String())); at >= 0 {
				fault(name, at, "the options are not those that this version of the node writes")
			}
		case name == "LOCK" || strings.HasPrefix(name, "marker."):
			if info, err := e.Info(); err != nil || info.Size() != 0 {
				fault(name, 0, "is not empty")
			}
		default:
			fault(name, -1, "a file that the store doesn't have")
		}
	}
	return out, nil
}

// differs returns where two texts first differ, -1 if nowhere.
func differs(a, b []byte) int64 {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return int64(i)
		}
	}
	return -1
}

func checkTable(files vfs.FS, path string, opts *pebble.Options) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a table that cannot be read: %v", p)
		}
	}()
	f, err := files.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, opts.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer func() { _ = r.Close() }() // opened to be read only
	if err := r.ValidateBlockChecksums(); err != nil {
		return err
	}
	return checkFooter(files, path)
}

// A table's footer without checksum: the type of the blocks' checksums, two
// block handles as varints, zeros up to 41 bytes, version and magic.
const (
	footerHandles = 41
	footerLeast   = 53
	footerSummed  = 6 // the first version whose footer has a checksum
)

// checkFooter verifies a footer's unused bytes, which no checksum covers in
// the older formats and no reader looks at.
func checkFooter(files vfs.FS, path string) error {
	raw, err := readAll(files, path)
	if err != nil {
		return err
	}
	if len(raw) < footerLeast {
		return errors.New("it has no footer")
	}
	if binary.LittleEndian.Uint32(raw[len(raw)-12:]) >= footerSummed {
		return nil
	}
	footer := raw[len(raw)-footerLeast:]
	at := 1
	for range 4 {
		_, n := binary.Uvarint(footer[at:])
		if n <= 0 || at+n > footerHandles {
			return errors.New("its footer is malformed")
		}
		at += n
	}
	for ; at < footerHandles; at++ {
		if footer[at] != 0 {
			return errors.New("its footer's unused bytes are not empty")
		}
	}
	return nil
}

// Layout of the record format of write-ahead logs and manifests (Pebble,
// package record): blocks of 32 KiB, filled with chunks that begin with a
// CRC-32C of all that follows the length, a length and a type.
const (
	chunkBlock  = 32 << 10
	legacyHead  = 7
	logHead     = legacyHead + 4
	syncHead    = logHead + 8
	firstLogged = 5
	firstSynced = 9
	lastType    = 12
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is LevelDB's: a checksum of data that holds checksums is no good.
func maskedCRC(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// checkChunks reads a whole file chunk by chunk. A log, whose chunks bear its
// number, must end with the trailer that a clean stop leaves; what follows
// that was never written or is of a file before it, and isn't read by anyone.
// A manifest, of number 0, ends with its last chunk.
func checkChunks(raw []byte, number uint32) (at int64, what string) {
	least := legacyHead // room that a chunk needs
	if number != 0 {
		least = logHead
	}
	for i := 0; ; {
		if number == 0 && i == len(raw) {
			return 0, ""
		}
		left := chunkBlock - i%chunkBlock
		if left < least {
			for k := i; k < min(i+left, len(raw)); k++ {
				if raw[k] != 0 {
					return int64(k), "a block's unused end is not empty"
				}
			}
			i = min(i+left, len(raw))
			continue
		}
		if i+legacyHead > len(raw) {
			return int64(i), endless(number)
		}
		sum, size, kind := binary.LittleEndian.Uint32(raw[i:]), int(binary.LittleEndian.Uint16(raw[i+4:])), raw[i+6]
		head := legacyHead
		switch {
		case kind >= firstSynced && kind <= lastType:
			head = syncHead
		case kind >= firstLogged && kind < firstSynced:
			head = logHead
		}
		if i+head > len(raw) {
			return int64(i), endless(number)
		}
		if number != 0 && head == logHead && sum == 0 && size == 0 && kind == firstLogged &&
			binary.LittleEndian.Uint32(raw[i+legacyHead:]) == number+1 {
			return 0, ""
		}
		end := i + head + size
		if kind == 0 || kind > lastType || head+size > left || end > len(raw) || maskedCRC(raw[i+6:end]) != sum {
			return int64(i), endless(number)
		}
		if number != 0 && (head == legacyHead || binary.LittleEndian.Uint32(raw[i+legacyHead:]) != number) {
			return int64(i), endless(number)
		}
		least = head
		i = end
	}
}

func endless(number uint32) string {
	if number == 0 {
		return "a record does not match its checksum"
	}
	return "a record does not match its checksum, or the node did not stop cleanly: then start and stop it before checking"
}
