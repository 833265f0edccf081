package replica

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/problem"
)

// topic is a partition in memory. It may be altered.
type topic struct {
	mu     sync.Mutex // guards what follows
	values [][]byte
	reads  int // fetches that brought something
}

func (p *topic) Fetch(_ context.Context, offset int64) (Fetched, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := Fetched{End: int64(len(p.values))}
	if offset > got.End {
		return got, ErrOutOfRange
	}
	for at := offset; at < got.End; at++ {
		got.Records = append(got.Records, Record{Offset: at, Value: bytes.Clone(p.values[at])})
	}
	if len(got.Records) > 0 {
		p.reads++
	}
	return got, nil
}

func (p *topic) write(values ...[]byte) (offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	offset = int64(len(p.values))
	for _, v := range values {
		p.values = append(p.values, bytes.Clone(v))
	}
	return offset
}

// handed is a shard whose owner hands over what it writes to a topic.
type handed struct {
	t       testing.TB
	dir     string
	topic   *topic
	store   *Store
	shard   *Shard
	decided int
	now     time.Time
}

func newHanded(t testing.TB, dir string) *handed {
	h := &handed{t: t, dir: dir, topic: &topic{}, now: time.Unix(1_700_000_000, 0)}
	h.open()
	h.barrier(1)
	h.step()
	return h
}

func (h *handed) open() {
	logger := slog.New(slog.DiscardHandler)
	var err error
	h.store, err = OpenStore(filepath.Join(h.dir, "store"), logger)
	require.NoError(h.t, err)
	h.shard, err = OpenShard(ShardConfig{
		Log: "claims", Store: h.store, Dir: filepath.Join(h.dir, "tiles"), Source: h.topic, Audit: h.topic, Logger: logger, Grace: time.Second,
	})
	require.NoError(h.t, err)
}

func (h *handed) close() { require.NoError(h.t, h.store.Close()) }

func (h *handed) barrier(term uint64) []byte {
	value, err := core.Barrier("claims", 0, term, h.shard.Head().Next, "o", h.now)
	require.NoError(h.t, err)
	h.topic.write(value)
	return value
}

func (h *handed) step() { require.NoError(h.t, h.shard.Step(h.t.Context(), h.now)) }

// audit audits until nothing moves.
func (h *handed) audit() {
	for {
		moved, err := h.shard.AuditStep(h.t.Context(), h.now)
		require.NoError(h.t, err)
		if !moved {
			return
		}
	}
}

// decide decides commits that follow each other and tells the shard of them,
// as its owner does before it writes them.
func (h *handed) decide(n int) (values [][]byte) {
	var commits []core.Written
	head, view := h.shard.Head(), core.NewOverlay(h.shard)
	for range n {
		h.decided++
		id := string(rune('a'+h.decided%26)) + time.Duration(h.decided).String()
		d, err := core.Decide(head, view, &ledgerv1.AppendRequest{
			Log: "claims", RoutingKey: "k", RequestId: id,
			Writes: []*ledgerv1.StreamWrite{{Stream: "claim-1", ExpectedRevision: core.Any, Events: []*ledgerv1.Event{{Type: "t", Payload: []byte(id)}}}},
		}, core.Provenance{Recorded: h.now})
		require.NoError(h.t, err)
		view.Add(d.Commit, d.Seen)
		head.Next++
		commits = append(commits, core.Written{Commit: d.Commit, Value: d.Value, Seen: d.Seen})
		values = append(values, d.Value)
	}
	h.shard.Expect(commits)
	return values
}

// hand writes commits and hands them over.
func (h *handed) hand(n int) (offset int64) {
	first := h.shard.Head().Next // a shard that runs may read them at once
	values := h.decide(n)
	offset = h.topic.write(values...)
	h.shard.Landed(offset, first, n)
	return offset
}

func ruleOf(t testing.TB, err error) string {
	t.Helper()
	var p *problem.Error
	require.ErrorAs(t, err, &p)
	return p.Problems[0].RuleID
}

// Given commits that landed where the replica stands, then it takes them in
// without reading them, comes to what a replica comes to that reads, and knows
// how much it has not read until the audit has.
func TestWhatTheOwnerWroteIsTakenInUnread(t *testing.T) {
	h := newHanded(t, t.TempDir())
	defer h.close()
	reads := h.topic.reads
	h.hand(3)
	h.step()
	h.hand(700)
	h.step()
	require.Equal(t, reads, h.topic.reads, "nothing was read")
	require.Equal(t, uint64(703), h.shard.Head().Next)
	require.Equal(t, int64(703), h.shard.Unaudited())
	h.audit()
	require.Zero(t, h.shard.Unaudited())

	other := newHandedOn(t, h.topic)
	defer other.close()
	other.step()
	require.Equal(t, h.shard.Head(), other.shard.Head())
	one, err := h.shard.Tree().Root(703)
	require.NoError(t, err)
	two, err := other.shard.Tree().Root(703)
	require.NoError(t, err)
	require.Equal(t, two, one)
	require.Zero(t, other.shard.Unaudited(), "what was read needs no audit")
	states := [2]any{}
	for i, s := range []*Shard{h.shard, other.shard} {
		states[i], err = s.StateRoot(703)
		require.NoError(t, err)
	}
	require.Equal(t, states[1], states[0])
}

// newHandedOn returns another replica of a topic.
func newHandedOn(t testing.TB, p *topic) *handed {
	h := &handed{t: t, dir: t.TempDir(), topic: p, now: time.Unix(1_700_000_000, 0)}
	h.open()
	return h
}

// Given commits that do not go on where the replica stands, because a record
// of nobody's or a barrier is between, because their outcome was never known,
// or because another term reigns, then the replica reads the topic.
func TestNoGapIsJumped(t *testing.T) {
	for name, between := range map[string]func(h *handed, values [][]byte) [][]byte{
		"a barrier of another session": func(h *handed, values [][]byte) [][]byte {
			h.barrier(2)
			return values
		},
		"a heartbeat": func(h *handed, values [][]byte) [][]byte {
			h.barrier(1)
			return values
		},
		"a batch that was not answered": func(h *handed, values [][]byte) [][]byte {
			h.topic.write(values[:2]...)
			return values[2:]
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHanded(t, t.TempDir())
			defer h.close()
			h.hand(2)
			h.step()
			values := h.decide(3)
			landed := between(h, values)
			h.shard.Landed(h.topic.write(landed...), h.shard.Head().Next+uint64(len(values)-len(landed)), len(landed))
			reads := h.topic.reads
			_ = h.shard.Step(t.Context(), h.now)
			require.Equal(t, reads+1, h.topic.reads)
			require.Equal(t, int64(2), h.shard.Unaudited())
			other := newHandedOn(t, h.topic)
			defer other.close()
			_ = other.shard.Step(t.Context(), h.now)
			require.Equal(t, other.shard.Head(), h.shard.Head())
		})
	}
}

// Given a batch of which the replica has read the beginning when it hears that
// it landed, then it takes in the rest, and what it read is not audited again.
func TestTheRestOfABatchIsTakenIn(t *testing.T) {
	h := newHanded(t, t.TempDir())
	defer h.close()
	values := h.decide(5)
	offset := h.topic.write(values[:2]...)
	h.step()
	require.Equal(t, uint64(2), h.shard.Head().Next)
	h.topic.write(values[2:]...)
	reads := h.topic.reads
	h.shard.Landed(offset, 0, 5)
	h.step()
	require.Equal(t, reads, h.topic.reads)
	require.Equal(t, uint64(5), h.shard.Head().Next)
	require.Equal(t, int64(3), h.shard.Unaudited())
}

// Given an answer that was never the broker's, at an offset that the topic
// doesn't have, then nothing of it is taken in: the offset alone says nothing.
func TestWhatDoesNotJoinIsNotTakenIn(t *testing.T) {
	h := newHanded(t, t.TempDir())
	defer h.close()
	h.decide(2)
	for _, landed := range []span{{0, 0, 2}, {2, 0, 2}, {1, 1, 1}, {1, 0, 3}} {
		h.shard.Landed(landed.offset, landed.index, int(landed.count))
		_ = h.shard.Step(t.Context(), h.now)
		require.Zero(t, h.shard.Head().Next, "%+v", landed)
	}
}

// Given any byte of a topic's record that was handed over and reads otherwise
// now, then the audit finds it, and the replica halts and names the place,
// whatever was handed over since; it is found as well after a restart.
func TestAnAlteredRecordIsFoundBehind(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		for _, at := range []int{0, 7, 30, -1} {
			h := newHanded(t, t.TempDir())
			offset := h.hand(4)
			h.step()
			altered := h.topic.values[offset+2]
			altered[(at+len(altered))%len(altered)] ^= 0x10
			h.hand(3)
			h.step()
			if restarted {
				h.close()
				h.open()
				require.Equal(t, int64(7), h.shard.Unaudited(), "a restart forgets none")
				h.step()
			}
			h.audit()
			require.NoError(t, h.shard.Halted(), "the follower decides")
			require.Equal(t, int64(5), h.shard.Unaudited())
			next := h.shard.Head().Next
			h.hand(1)
			err := h.shard.Step(t.Context(), h.now)
			require.Equal(t, "ledger.topic.altered", ruleOf(t, err))
			require.ErrorContains(t, err, "offset 3, index 2,")
			require.Equal(t, next, h.shard.Head().Next, "nothing is taken in any more")
			require.Error(t, h.shard.Halted())
			h.close()
		}
	}
}

// Given a topic that was lost and made anew, with the same commits at other
// offsets, while some were not audited, then the replica halts for nothing: it
// compares the whole topic, which is the audit.
func TestATopicMadeAnewIsNoAlteredOne(t *testing.T) {
	h := newHanded(t, t.TempDir())
	defer h.close()
	h.hand(2)
	h.step()
	h.barrier(1) // a heartbeat, which is not republished
	h.step()
	h.hand(2)
	h.step()
	require.Equal(t, int64(4), h.shard.Unaudited())
	h.topic.mu.Lock()
	v := h.topic.values
	h.topic.values = [][]byte{v[0], v[1], v[2], v[4], v[5]}
	h.topic.mu.Unlock()
	h.audit()
	for range 4 {
		_ = h.shard.Step(t.Context(), h.now)
		h.audit()
		h.now = h.now.Add(time.Second)
	}
	require.NoError(t, h.shard.Halted())
	require.Zero(t, h.shard.Unaudited())
	h.hand(1)
	h.step()
	require.Equal(t, uint64(5), h.shard.Head().Next)

	// Unless it is not the same.
	h.topic.values[2][20] ^= 1
	h.topic.mu.Lock()
	h.topic.values = append([][]byte{h.barrierOf(1)}, h.topic.values...)
	h.topic.mu.Unlock()
	h.audit()
	var err error
	for range 4 {
		err = h.shard.Step(t.Context(), h.now)
		h.now = h.now.Add(time.Second)
	}
	require.Equal(t, "ledger.topic.rewritten", ruleOf(t, err))
}

func (h *handed) barrierOf(term uint64) []byte {
	value, err := core.Barrier("claims", 0, term, 0, "o", h.now)
	require.NoError(h.t, err)
	return value
}

// Given a topic that no longer has what was acknowledged, then it is given the
// time a new leader may need, and not more.
func TestATopicThatLostWhatWasHandedOverHalts(t *testing.T) {
	h := newHanded(t, t.TempDir())
	defer h.close()
	h.hand(2)
	h.step()
	whole := h.topic.values
	h.topic.values = whole[:1]
	h.audit()
	h.now = h.now.Add(999 * time.Millisecond)
	h.audit()
	h.topic.values = whole
	h.audit()
	require.Zero(t, h.shard.Unaudited(), "it had only been behind")

	h.hand(2)
	h.step()
	h.topic.values = h.topic.values[:3]
	h.audit()
	h.now = h.now.Add(time.Second)
	h.audit()
	// The follower looks for itself: the topic may have been made anew.
	for range 4 {
		_ = h.shard.Step(t.Context(), h.now)
		h.now = h.now.Add(2 * time.Second)
	}
	require.Equal(t, "ledger.topic.truncated", ruleOf(t, h.shard.Halted()))
}

// Given as much that was not audited as there may be, then the replica reads
// in line until the audit has come nearer.
func TestTooMuchUnreadIsReadInLine(t *testing.T) {
	h := newHanded(t, t.TempDir())
	defer h.close()
	h.hand(10)
	h.step()
	pretend := func(held int64) {
		h.shard.handing.mu.Lock()
		h.shard.handing.held = held
		h.shard.handing.bound()
		h.shard.handing.mu.Unlock()
	}
	reads := h.topic.reads
	for _, c := range []struct {
		unread int64
		read   bool
	}{{mostUnread - 1, false}, {mostUnread, true}, {mostUnread - 1, true}, {mostUnread / 4 * 3, true}, {mostUnread/4*3 - 1, false}} {
		pretend(c.unread)
		h.hand(1)
		h.step()
		if c.read {
			reads++
		}
		require.Equal(t, reads, h.topic.reads, "%d", c.unread)
	}
	require.Equal(t, uint64(15), h.shard.Head().Next)
}

// Run waits for what its owner writes, takes it in when it landed, and looks
// into the topic as soon as the owner's session ends.
func TestRunWaitsForItsOwner(t *testing.T) {
	h := newHanded(t, t.TempDir())
	defer h.close()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = h.shard.Run(ctx) })
	running.Go(func() { h.shard.Audit(ctx) })
	defer func() { stop(); running.Wait() }()
	for round := range uint64(20) {
		h.hand(5)
		require.NoError(t, h.shard.WaitIndex(t.Context(), 5*round+4))
	}
	require.Eventually(t, func() bool { return h.shard.Head().Next == 100 && h.shard.Unaudited() == 0 }, 10*time.Second, time.Millisecond)
	values := h.decide(1)
	h.shard.Left()
	h.topic.write(values...)
	require.NoError(t, h.shard.WaitIndex(t.Context(), 100))
}

// A mark says what it was made of, and any byte less or more is none.
func TestAMarkKeepsWhatIsUnread(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st := state{
			Next: rapid.Uint64().Draw(rt, "next"), Term: rapid.Uint64().Draw(rt, "term"), Owner: rapid.String().Draw(rt, "owner"),
			Offset: rapid.Int64Min(0).Draw(rt, "offset"), Hint: rapid.Int64Min(0).Draw(rt, "hint"),
		}
		for range rapid.IntRange(0, mostSpans).Draw(rt, "spans") {
			st.Unread = append(st.Unread, span{rapid.Int64Min(0).Draw(rt, "at"), rapid.Uint64().Draw(rt, "index"), rapid.Int64Min(0).Draw(rt, "count")})
		}
		raw := st.marshal()
		got, ok := parseState(raw)
		require.True(rt, ok)
		require.Equal(rt, st, got)
		_, ok = parseState(append(bytes.Clone(raw), 0))
		require.False(rt, ok)
		_, ok = parseState(raw[:len(raw)-1])
		require.False(rt, ok)
	})
}
