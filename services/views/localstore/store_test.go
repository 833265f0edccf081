package localstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
	"github.com/probity-health/probity/services/views/viewstest"
)

func TestSuite(t *testing.T) {
	viewstest.Run(t, func(t *testing.T) viewstest.Subject {
		s := open(t, t.TempDir())
		return viewstest.Subject{Open: func() views.Store { return s }, Flush: s.Clear}
	})
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

var (
	ctx = context.Background()
	one = views.Build{View: "erasures", Shard: 3, Version: 2}
)

// commit applies commands as the next commit.
func commit(t require.TestingT, s *Store, ops ...views.Op) {
	at, err := s.Offsets(ctx, one)
	require.NoError(t, err)
	done, err := s.Apply(ctx, views.Batch{Build: one, From: at[0], Next: at[0] + 1, Changes: []views.Change{{Index: at[0], Ops: ops}}})
	require.NoError(t, err)
	require.Equal(t, views.Applied{Verdict: views.Done, Commits: 1}, done)
}

// begin makes the shard known and live, so that a further Open finds it.
func begin(t require.TestingT, s *Store) {
	require.NoError(t, s.AddShards(ctx, one.View, []uint32{one.Shard}))
	live, same, err := s.GoLive(ctx, one)
	require.NoError(t, err)
	require.True(t, same)
	require.Equal(t, one.Version, live)
}

// model is what any store holds after commands, in the plainest way.
type model map[string]views.Table

func (m model) do(o views.Op) {
	if o.Command == views.DEL {
		delete(m, o.Key)
		return
	}
	t, ok := m[o.Key]
	if !ok {
		t = views.Table{Kind: o.Command.Kind()}
		switch t.Kind {
		case views.Hash:
			t.Hash = map[string]string{}
		case views.SortedSet, views.MemberSet:
			t.Scores = map[string]int64{}
		}
	}
	switch o.Command {
	case views.HSET:
		o.Each(func(f, v string) { t.Hash[f] = v })
	case views.HDEL:
		o.Each(func(f, _ string) { delete(t.Hash, f) })
	case views.HINCRBY:
		t.Hash[o.Name], _ = views.Add(t.Hash[o.Name], o.N)
	case views.ZADD:
		t.Scores[o.Name] = o.N
	case views.SADD:
		o.Each(func(n, _ string) { t.Scores[n] = 0 })
	case views.ZREM, views.SREM:
		o.Each(func(n, _ string) { delete(t.Scores, n) })
	case views.SET:
		t.Text = o.Value
	case views.INCRBY:
		t.Text, _ = views.Add(t.Text, o.N)
	}
	m[o.Key] = t
	if t.Kind != views.String && len(t.Hash)+len(t.Scores) == 0 {
		delete(m, o.Key)
	}
}

// page is what Range is to answer.
func (m model) page(key string, p views.Page) (out []views.Member) {
	for name, score := range m[key].Scores {
		member := views.Member{Name: name, Score: score, Shard: one.Shard}
		if (p.Min == nil || score >= *p.Min) && (p.Max == nil || score <= *p.Max) && (p.After == nil || p.Compare(member, *p.After) > 0) {
			out = append(out, member)
		}
	}
	slices.SortFunc(out, p.Compare)
	return out[:min(len(out), p.Limit)]
}

func held(t require.TestingT, s *Store) model {
	out := model{}
	require.NoError(t, s.Tables(ctx, one, func(key string, table views.Table) error {
		require.NotContains(t, out, key, "a key comes once")
		out[key] = table
		return nil
	}))
	return out
}

// commands of a projection: a key has one kind, unless DEL makes it another's.
func command(t *rapid.T) views.Op {
	n := rapid.SampledFrom([]string{"1", "2"}).Draw(t, "key")
	// Few names meet in many tables, many make blocks.
	name := rapid.SampledFrom([]string{"a", "b", "a.x", "a.y", "b.long", "", "a..z", ".q"}).Draw(t, "name")
	if rapid.Bool().Draw(t, "one of many") {
		name = fmt.Sprintf("clm_%d", rapid.IntRange(0, 400).Draw(t, "number"))
	}
	more := rapid.SampledFrom([]string{"m", "m.r", "m.d"}).Draw(t, "more")
	score := rapid.SampledFrom([]int64{-1 << 62, -3, 0, 1, 2, 1_700_000_000_000, 1 << 62}).Draw(t, "score")
	value := strings.Repeat("v", rapid.SampledFrom([]int{0, 1, 24, 25, 300}).Draw(t, "length")) + name
	switch rapid.IntRange(0, 11).Draw(t, "command") {
	case 0:
		return views.HSet("hash"+n, name, value)
	case 1:
		return views.HSet("hash"+n, name, value, more, "x")
	case 2:
		return views.HDel("hash"+n, name, more)
	case 3:
		return views.HIncr("sums"+n, name, score/4)
	case 4, 5, 6:
		return views.ZAdd("zset"+n, score, name)
	case 7:
		return views.ZRem("zset"+n, name, more)
	case 8:
		return views.SAdd("set"+n, name, more)
	case 9:
		return views.SRem("set"+n, name)
	case 10:
		return views.Set("string"+n, value)
	default:
		switch rapid.IntRange(0, 3).Draw(t, "rare") {
		case 0:
			return views.Del(rapid.SampledFrom([]string{"hash", "zset", "set", "string", "sums"}).Draw(t, "kind") + n)
		case 1:
			return views.Incr("count"+n, score/4)
		default:
			return views.ZAdd("zset"+n, rapid.Int64().Draw(t, "any score"), name)
		}
	}
}

// Given any commands, then the store holds what they say, answers every page
// as a sorted list would, and holds the same after it was closed and opened.
func TestHoldsWhatCommandsSay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(rt, err)
		s := open(t, dir)
		defer func() { _ = s.Close() }()
		begin(rt, s)
		want := model{}
		for range rapid.IntRange(1, 8).Draw(rt, "batches") {
			ops := rapid.SliceOfN(rapid.Custom(command), 1, 300).Draw(rt, "commands")
			for _, o := range ops {
				want.do(o)
			}
			commit(rt, s, ops...)
			require.Equal(rt, want, held(rt, s))
			if rapid.Bool().Draw(rt, "reopen") {
				require.NoError(rt, s.Close())
				s = open(t, dir)
				require.Equal(rt, want, held(rt, s))
			}
		}
		for _, key := range []string{"zset1", "zset2", "zset3"} {
			page := views.Page{Descending: rapid.Bool().Draw(rt, "descending"), Limit: rapid.IntRange(1, 60).Draw(rt, "limit")}
			if bound := rapid.SampledFrom([]int64{-4, -3, 0, 1, 5, 1 << 62}); rapid.Bool().Draw(rt, "bounded") {
				low, high := bound.Draw(rt, "min"), bound.Draw(rt, "max")
				page.Min, page.Max = &low, &high
			}
			for {
				part, err := s.Range(ctx, views.At{Build: one, Key: key}, page)
				require.NoError(rt, err)
				require.Equal(rt, want.page(key, page), part)
				if len(part) == 0 {
					break
				}
				page.After = &part[len(part)-1]
			}
			n, err := s.Count(ctx, views.At{Build: one, Key: key})
			require.NoError(rt, err)
			require.Len(rt, want[key].Scores, int(n))
		}
		for _, key := range []string{"hash1", "hash2", "sums1"} {
			fields := append(slices.Sorted(maps.Keys(want[key].Hash)), "absent", "absent.x", "a.unknown")
			got, err := s.Hashes(ctx, views.Fields{At: views.At{Build: one, Key: key}, Fields: fields}, views.Fields{At: views.At{Build: one, Key: key}})
			require.NoError(rt, err)
			require.Equal(rt, want[key].Hash, got[0])
			require.Equal(rt, want[key].Hash, got[1])
		}
	})
}

// Given thousands of members that come in order, nearly in order, in any order
// or all at one score, and leave again, then pages are those of a sorted list.
func TestManyMembers(t *testing.T) {
	for name, score := range map[string]func(r *rand.Rand, i int) int64{
		"in order":        func(_ *rand.Rand, i int) int64 { return int64(i) },
		"nearly in order": func(r *rand.Rand, i int) int64 { return int64(i/4 - r.IntN(60)) },
		"in any order":    func(r *rand.Rand, _ int) int64 { return int64(r.Uint64()) },
		"at few scores":   func(r *rand.Rand, _ int) int64 { return int64(r.IntN(3)) },
		"at one score":    func(*rand.Rand, int) int64 { return 7 },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			dir := t.TempDir()
			s, want := open(t, dir), model{}
			begin(t, s)
			check := func() {
				t.Helper()
				require.Equal(t, want, held(t, s))
				for range 40 {
					page := views.Page{Descending: r.IntN(2) == 0, Limit: 1 + r.IntN(300)}
					of := want.page("z", views.Page{Limit: 1 << 20})
					some := func() *views.Member {
						if len(of) == 0 || r.IntN(3) == 0 {
							return nil
						}
						m := of[r.IntN(len(of))]
						return &m
					}
					if page.After = some(); page.After != nil && r.IntN(4) == 0 {
						page.After.Name = "clm_5 is none" // a member that is not there
					}
					if m := some(); m != nil {
						page.Min = &m.Score
					}
					if m := some(); m != nil {
						page.Max = &m.Score
					}
					got, err := s.Range(ctx, views.At{Build: one, Key: "z"}, page)
					require.NoError(t, err)
					require.Equal(t, want.page("z", page), got)
				}
			}
			var ops []views.Op
			send := func() {
				for _, o := range ops {
					want.do(o)
				}
				commit(t, s, ops...)
				ops = ops[:0]
			}
			for i := range 3000 {
				ops = append(ops, views.ZAdd("z", score(r, i), fmt.Sprintf("clm_%d", r.IntN(100_000))), views.SAdd("set", fmt.Sprint("m", r.IntN(3000))))
				if i%5 == 0 {
					ops = append(ops, views.ZAdd("z", score(r, i), fmt.Sprintf("clm_%d", i)))
				}
			}
			send()
			check()
			require.NoError(t, s.Close())
			s = open(t, dir)
			check()
			// The oldest leave first, as what was remitted does, then any.
			for i, m := range want.page("z", views.Page{Limit: 1 << 20}) {
				if i < 700 || r.IntN(3) > 0 {
					ops = append(ops, views.ZRem("z", m.Name), views.SRem("set", fmt.Sprint("m", i)))
				}
			}
			send()
			check()
			for i := range 500 {
				ops = append(ops, views.ZAdd("z", score(r, i), fmt.Sprintf("clm_%d", i)))
			}
			send()
			check()
			ops = append(ops, views.Del("z"))
			send()
			check()
			require.NoError(t, s.Close())
			s = open(t, dir)
			check()
		})
	}
}

// Given a name in very many tables, as a field that every hash has, and an id
// with very many parts, then nothing is lost and nothing is left over.
func TestNamesOfManyTables(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	begin(t, s)
	want := model{}
	do := func(ops ...views.Op) {
		for _, o := range ops {
			want.do(o)
		}
		commit(t, s, ops...)
	}
	for i := range 2000 {
		do(views.HSet(fmt.Sprint("subject:", i), "reason", fmt.Sprint(i)), views.HSet("parts", fmt.Sprintf("id.%d", i), fmt.Sprint(i)), views.ZAdd(fmt.Sprint("z:", i), int64(i), "member"))
	}
	require.Equal(t, want, held(t, s))
	require.NoError(t, s.Close())
	s = open(t, dir)
	require.Equal(t, want, held(t, s))
	for i := range 2000 {
		do(views.HDel(fmt.Sprint("subject:", i), "reason"), views.HDel("parts", fmt.Sprintf("id.%d", i)), views.Del(fmt.Sprint("z:", i)))
	}
	require.Empty(t, held(t, s))
	do(views.ZAdd("z:5", 7, "member"))
	require.Equal(t, want, held(t, s))
}

// Given a sum that overflows, or a value that is no number, then the commit is
// parked as partly applied, and the rest of it stands, as in Redis.
func TestPartlyApplied(t *testing.T) {
	s := open(t, t.TempDir())
	commit(t, s, views.HIncr("sums", "n", 1<<62), views.Set("text", "x"))
	commit(t, s, views.HIncr("sums", "n", 1<<62), views.SAdd("set", "m"))
	commit(t, s, views.Incr("text", 1))
	parked, err := s.Parked(ctx, one)
	require.NoError(t, err)
	require.Equal(t, map[uint64]string{1: views.PartlyApplied + "HINCRBY", 2: views.PartlyApplied + "INCRBY"}, parked)
	require.Equal(t, []string{"m"}, slices.Collect(maps.Keys(held(t, s)["set"].Scores)))
}

// Given a file that a crash has cut or changed anywhere, then what is before
// that frame is there, and the rest is followed again.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	begin(t, s)
	var states []model
	var ends []int64
	path := filepath.Join(dir, fileOf(one))
	want := model{}
	for i := range 20 {
		ops := []views.Op{views.HSet("row", fmt.Sprintf("clm_%d.r", i), strings.Repeat("x", 40)), views.ZAdd("all", int64(i), fmt.Sprintf("clm_%d", i))}
		for _, o := range ops {
			want.do(o)
		}
		commit(t, s, ops...)
		states = append(states, held(t, s))
		info, err := os.Stat(path)
		require.NoError(t, err)
		ends = append(ends, info.Size())
	}
	require.NoError(t, s.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for at := len(magic); at < len(whole); at += 7 {
		frame, _ := slices.BinarySearch(ends, int64(at)+1)
		for name, harm := range map[string]func() []byte{
			"cut":     func() []byte { return whole[:at] },
			"changed": func() []byte { out := slices.Clone(whole); out[at] ^= 0x55; return out },
			"zeros":   func() []byte { out := slices.Clone(whole); clear(out[at:]); out[at] ^= 1; return out },
		} {
			require.NoError(t, os.WriteFile(path, harm(), 0o600))
			s := open(t, dir)
			offset, err := s.Offsets(ctx, one)
			require.NoError(t, err)
			if frame == 0 {
				require.Zero(t, offset[0], "%s at %d", name, at)
			} else {
				require.Equal(t, uint64(frame), offset[0], "%s at %d", name, at)
				require.Equal(t, states[frame-1], held(t, s), "%s at %d", name, at)
			}
			// And it goes on.
			commit(t, s, views.SAdd("after", "x"))
			require.NoError(t, s.Close())
			s = open(t, dir)
			require.Contains(t, held(t, s), "after")
			require.NoError(t, s.Close())
		}
	}
}

// Given a file that is another's, or heads that can't be read, then nobody
// reads what is left of the build, and it is made anew.
func TestStrangeFiles(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"rows": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, fileOf(one)), []byte("#!/bin/sh\nexit 1\n\n\n"), 0o600)
		},
		"heads": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, headsFile), []byte(`{"erasures":`), 0o600)
		},
		"no heads": func(dir string) error { return os.Remove(filepath.Join(dir, headsFile)) },
	} {
		dir := t.TempDir()
		s := open(t, dir)
		begin(t, s)
		commit(t, s, views.Set("a", "b"))
		require.NoError(t, s.Close())
		require.NoError(t, harm(dir))
		s = open(t, dir)
		heads, err := s.Heads(ctx, one.View, []uint32{one.Shard})
		require.NoError(t, err)
		require.Equal(t, []views.Head{{}}, heads, name)
		require.Empty(t, held(t, s), name)
		_, err = os.Stat(filepath.Join(dir, fileOf(one)))
		require.ErrorIs(t, err, os.ErrNotExist, name)
	}
}

// Given a directory that is only read, then it answers, refuses what would
// change it, and every file stays as it is, the end of a cut frame included.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	begin(t, s)
	commit(t, s, views.Set("a", "b"))
	require.NoError(t, s.Close())
	file, err := os.OpenFile(filepath.Join(dir, fileOf(one)), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString("cut")
	require.NoError(t, errors.Join(err, file.Close()))
	stray := filepath.Join(dir, fileOf(views.Build{View: "other", Version: 1}))
	require.NoError(t, os.WriteFile(stray, []byte("x"), 0o600))
	contents := func() map[string]string {
		out := map[string]string{}
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, f := range files {
			raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
			require.NoError(t, err)
			out[f.Name()] = string(raw)
		}
		return out
	}
	before := contents()

	r, err := Read(dir)
	require.NoError(t, err)
	require.Equal(t, model{"a": {Kind: views.String, Text: "b"}}, held(t, r))
	_, err = r.Apply(ctx, views.Batch{Build: one, From: 1, Next: 2})
	require.True(t, problem.Is(err, problem.Unavailable))
	require.True(t, problem.Is(r.AddShards(ctx, "other", []uint32{1}), problem.Unavailable))
	require.True(t, problem.Is(r.Drop(ctx, one.View, one.Shard, func(views.Build) bool { return true }), problem.Unavailable))
	require.True(t, problem.Is(r.Clear(), problem.Unavailable))
	require.NoError(t, r.Close())
	require.Equal(t, before, contents())

	// What can't be read is said, not deleted.
	require.NoError(t, os.WriteFile(filepath.Join(dir, fileOf(one)), []byte("#!/bin/sh\nexit 1\n\n"), 0o600))
	_, err = Read(dir)
	require.ErrorIs(t, err, errSteps)
	require.NoError(t, os.Remove(filepath.Join(dir, headsFile)))
	_, err = Read(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Given a store that is closed, then every call says Unavailable.
func TestClosed(t *testing.T) {
	s := open(t, t.TempDir())
	begin(t, s)
	commit(t, s, views.Set("a", "b"))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	at := views.At{Build: one, Key: "a"}
	for name, call := range map[string]func() error{
		"Shards":    func() error { _, err := s.Shards(ctx, one.View); return err },
		"AddShards": func() error { return s.AddShards(ctx, one.View, []uint32{9}) },
		"Heads":     func() error { _, err := s.Heads(ctx, one.View, []uint32{one.Shard}); return err },
		"GoLive":    func() error { _, _, err := s.GoLive(ctx, one); return err },
		"Renew":     func() error { _, err := s.Renew(ctx, one.View, one.Shard); return err },
		"Drop":      func() error { return s.Drop(ctx, one.View, one.Shard, func(views.Build) bool { return true }) },
		"Apply":     func() error { _, err := s.Apply(ctx, views.Batch{Build: one, From: 1, Next: 2}); return err },
		"Offsets":   func() error { _, err := s.Offsets(ctx, one); return err },
		"Parked":    func() error { _, err := s.Parked(ctx, one); return err },
		"Hashes":    func() error { _, err := s.Hashes(ctx, views.Fields{At: at}); return err },
		"Members":   func() error { _, err := s.Members(ctx, at); return err },
		"Count":     func() error { _, err := s.Count(ctx, at); return err },
		"Range":     func() error { _, err := s.Range(ctx, at, views.Page{Limit: 1}); return err },
		"Tables":    func() error { return s.Tables(ctx, one, func(string, views.Table) error { return nil }) },
		"Clear":     s.Clear,
	} {
		require.True(t, problem.Is(call(), problem.Unavailable), name)
	}
}

// Given a file that can't be written, then what came last is still read, the
// next batch is refused and changes nothing, and it goes on when it can be.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	begin(t, s)
	long := strings.Repeat("x", 100)
	commit(t, s, views.HSet("row", "a.r", long))
	b := s.shards[place{one.View, one.Shard}].builds[version{one.Version, 0}]
	sound := b.journal.file
	readOnly, err := os.Open(sound.Name())
	require.NoError(t, err)
	b.journal.file = readOnly

	commit(t, s, views.HSet("row", "b.r", long+"b"))
	got, err := s.Hashes(ctx, views.Fields{At: views.At{Build: one, Key: "row"}})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a.r": long, "b.r": long + "b"}, got[0])
	before := held(t, s)
	_, err = s.Apply(ctx, views.Batch{Build: one, From: 2, Next: 3, Changes: []views.Change{{Index: 2, Ops: []views.Op{views.Set("s", "x")}}}})
	require.True(t, problem.Is(err, problem.Unavailable))
	require.Equal(t, before, held(t, s))

	b.journal.file = sound
	require.NoError(t, readOnly.Close())
	commit(t, s, views.Set("s", "x"))
	require.NoError(t, s.Close())
	require.Equal(t, long+"b", held(t, open(t, dir))["row"].Hash["b.r"])
}

// FuzzFollow: no bytes in a frame take a start down, and what they leave can
// be read and written to.
func FuzzFollow(f *testing.F) {
	dir := f.TempDir()
	s := open(f, dir)
	begin(f, s)
	commit(f, s, views.HSet("row", "a.r", strings.Repeat("x", 30), "a.d", "y"), views.ZAdd("all", 5, "a"), views.SAdd("set", "a"), views.Set("s", "x"))
	commit(f, s, views.HDel("row", "a.r"), views.ZAdd("all", 6, "a"), views.ZRem("all", "a"), views.Del("set"), views.HIncr("row", "n", 1))
	require.NoError(f, s.Close())
	file, err := os.Open(filepath.Join(dir, fileOf(one)))
	require.NoError(f, err)
	_, err = frames(file, func(payload []byte, _ int64) error { f.Add(slices.Clone(payload)); return nil })
	require.NoError(f, err)
	require.NoError(f, file.Close())
	f.Fuzz(func(t *testing.T, payload []byte) {
		b := newBuild(&journal{frame: make([]byte, frameHead)})
		if b.follow(payload, 0) != nil {
			return
		}
		b.journal.frame = append(b.journal.frame[:0], payload...) // where its values are
		require.NoError(t, b.all(func(string, views.Table) error { return nil }))
		for key := range b.tables {
			b.drop(uint32(key))
		}
		require.NoError(t, b.all(func(string, views.Table) error { t.Fatal("something is left"); return nil }))
	})
}
