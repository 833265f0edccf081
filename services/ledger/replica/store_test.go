package replica

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// Given a data directory of the first layout, whose commits were in the
// store, then it is refused with what to do and nothing is written to it.
func TestAnotherLayoutIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	set := func(key, value string) {
		db, err := pebble.Open(dir, &pebble.Options{Logger: quietLogger{slog.New(slog.DiscardHandler)}})
		require.NoError(t, err)
		require.NoError(t, db.Set([]byte(key), []byte(value), pebble.Sync))
		require.NoError(t, db.Close())
	}
	set("claims\x00\x00\x00\x00\x00h", `{"next":1}`)
	for range 2 {
		_, err := OpenStore(dir, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "delete it")
	}
	set(string(formatRow), "3")
	_, err := OpenStore(dir, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, errFormat)
}

// Given any commits, flushed anywhere between, then the index leads to each,
// and to each stream's extents in order, from any revision on, whether the
// store was handed rows or sorted tables.
func TestTheIndexLeadsToEveryCommit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store, err := OpenStore(filepath.Join(t.TempDir(), "store"), slog.New(slog.DiscardHandler))
		require.NoError(rt, err)
		defer func() { require.NoError(rt, store.Close()) }()
		x := newIndex(store.rows("claims", 0), store, rapid.SampledFrom([]int{1, 4, tableAt}).Draw(rt, "table at"))
		want := map[string][]extent{}
		apart := uint64(0)
		commits := rapid.IntRange(1, 30).Draw(rt, "commits")
		for i := range commits {
			row := core.Row{RequestID: fmt.Sprint("r", i)}
			for w, s := range rapid.SliceOfNDistinct(rapid.IntRange(0, 4), 1, 3, rapid.ID).Draw(rt, "streams") {
				name := fmt.Sprint("s-", s)
				e := extent{index: uint64(i), write: w, count: rapid.IntRange(1, 3).Draw(rt, "events")}
				if before := want[name]; len(before) > 0 {
					e.first = uint64(before[len(before)-1].last() + 1)
				}
				want[name] = append(want[name], e)
				row.Writes = append(row.Writes, core.RowWrite{Stream: name, First: e.first, Count: uint64(e.count)})
			}
			x.add([]stored{x.hashes.stored(uint64(i), row)})
			// What was rolled is written some time before the next roll.
			roll := rapid.IntRange(0, 4).Draw(rt, "roll") == 0
			if apart > 0 && (roll || rapid.Bool().Draw(rt, "write")) {
				require.NoError(rt, x.write(apart))
				indexed, err := x.rows.indexed()
				require.NoError(rt, err)
				require.Equal(rt, apart, indexed)
				apart = 0
			}
			if roll {
				x.roll()
				apart = uint64(i + 1)
			}
		}
		for i := range commits {
			at, ok, err := x.request(fmt.Sprint("r", i))
			require.NoError(rt, err)
			require.True(rt, ok)
			require.Equal(rt, uint64(i), at)
		}
		_, ok, err := x.request("never")
		require.NoError(rt, err)
		require.False(rt, ok)
		for i := range 5 {
			name := fmt.Sprint("s-", i)
			all := want[name]
			last, err := x.lastRevision(name)
			require.NoError(rt, err)
			if len(all) == 0 {
				require.Equal(rt, core.NoStream, last)
				continue
			}
			require.Equal(rt, all[len(all)-1].last(), last)
			from := rapid.Uint64Range(0, uint64(last)).Draw(rt, "from")
			var got []extent
			require.NoError(rt, x.eachExtent(name, from, func(e extent) (bool, error) {
				got = append(got, e)
				return true, nil
			}))
			for len(all) > 0 && all[0].last() < int64(from) {
				all = all[1:]
			}
			require.Equal(rt, all, got, "%s from %d", name, from)
		}
	})
}

// A state is read back as it was written, and nothing else is read as one.
func TestAStateReadsBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st := state{
			Next: rapid.Uint64().Draw(rt, "next"), Term: rapid.Uint64().Draw(rt, "term"), Owner: rapid.String().Draw(rt, "owner"),
			Offset: rapid.Int64Min(0).Draw(rt, "offset"), Hint: rapid.Int64Min(0).Draw(rt, "hint"),
		}
		if rapid.Bool().Draw(rt, "read") {
			st.Last = rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "last")
		}
		raw := st.marshal()
		got, ok := parseState(raw)
		require.True(rt, ok)
		require.Equal(rt, st, got)
		_, ok = parseState(append(raw, 0))
		require.False(rt, ok)
		_, ok = parseState(raw[:rapid.IntRange(0, len(raw)-1).Draw(rt, "cut")])
		require.False(rt, ok)
	})
}

// Given readers beside a follower whose files fill and whose index is flushed
// all the time, then what the shard has reached they always find.
func TestReadersBesideAFollower(t *testing.T) {
	a := &alone{t: t, dir: t.TempDir()}
	logger := slog.New(slog.DiscardHandler)
	disk := tiles.Disk{SegmentBytes: 2 << 10}
	var err error
	a.store, err = OpenStoreOn(disk, filepath.Join(a.dir, "store"), logger)
	require.NoError(t, err)
	a.shard, err = OpenShard(ShardConfig{Log: "claims", Store: a.store, Dir: filepath.Join(a.dir, "tiles"), Source: silent{}, Logger: logger, FlushAt: 7})
	require.NoError(t, err)
	const commits, streams = 300, 5
	ctx, stop := context.WithCancel(t.Context())
	var readers errgroup.Group
	for reader := range 3 {
		readers.Go(func() error {
			for n := uint64(reader); ctx.Err() == nil; n += 7 {
				reached := a.shard.Head().Next
				if reached == 0 {
					continue
				}
				at := n % reached
				if seen, ok, err := a.shard.Request(fmt.Sprint("r", at)); err != nil || !ok || seen.Index != at {
					return fmt.Errorf("request %d of %d: %v %v %w", at, reached, seen.Index, ok, err)
				}
				name := fmt.Sprint("s-", at%streams)
				var events uint64
				if err := a.shard.Stream(name, 0, func(e *ledgerv1.RecordedEvent) bool { events++; return e.Revision == events-1 }); err != nil {
					return err
				}
				if want := (reached-1-at%streams)/streams + 1; reached > at%streams && events < want {
					return fmt.Errorf("stream %s shows %d events of %d", name, events, want)
				}
				if _, err := a.shard.Values(at, 20, 1<<20); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range commits {
		require.NoError(t, a.apply(a.decide(fmt.Sprint("r", i), fmt.Sprint("s-", i%streams)).Value))
	}
	stop()
	require.NoError(t, readers.Wait())
	require.NoError(t, a.store.Close())
}

// Names are put in the order of their bytes, whatever they share.
func TestNamesAreSortedByTheirBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringOfN(rapid.SampledFrom([]rune{0, 1, 'a'}), 0, 12, -1), 0, 50, rapid.ID).Draw(rt, "names")
		var got []string
		for _, p := range sortNames(names) {
			got = append(got, names[p.at])
		}
		require.Equal(rt, slices.Sorted(slices.Values(names)), got)
	})
}

// Given that a crash left the name under which the store took a table, so that
// both name one file, then the next table leaves that one as it is.
func TestATableTakenBeforeIsNotWrittenOver(t *testing.T) {
	dir := t.TempDir()
	store, err := OpenStore(filepath.Join(dir, "store"), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	x := newIndex(store.rows("claims", 0), store, 1)
	add := func(i uint64) {
		x.add([]stored{x.hashes.stored(i, core.Row{RequestID: fmt.Sprint("r", i), Writes: []core.RowWrite{{Stream: "s-1", First: i, Count: 1}}})})
		x.roll()
		require.NoError(t, x.write(i+1))
	}
	add(0)
	tables, err := filepath.Glob(filepath.Join(dir, "store", "*.sst"))
	require.NoError(t, err)
	require.Len(t, tables, 1)
	require.NoError(t, os.Link(tables[0], store.newTable()))
	add(1)
	require.NoFileExists(t, store.newTable())
	require.NoError(t, store.Close())
	store, err = OpenStore(filepath.Join(dir, "store"), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	x = newIndex(store.rows("claims", 0), store, 1)
	for i := range uint64(2) {
		at, ok, err := x.request(fmt.Sprint("r", i))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, i, at)
	}
	last, err := x.lastRevision("s-1")
	require.NoError(t, err)
	require.Equal(t, int64(1), last)
}
