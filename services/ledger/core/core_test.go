package core_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/problem"
)

// ground is the View of a shard without commits.
type ground struct{}

func (ground) LastRevision(string) (int64, error)      { return core.NoStream, nil }
func (ground) Request(string) (core.Seen, bool, error) { return core.Seen{}, false, nil }

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func request(id, stream string, expected int64, payloads ...string) *ledgerv1.AppendRequest {
	w := &ledgerv1.StreamWrite{Stream: stream, ExpectedRevision: expected}
	for _, p := range payloads {
		w.Events = append(w.Events, &ledgerv1.Event{Type: "t", Payload: []byte(p)})
	}
	return &ledgerv1.AppendRequest{Log: "claims", RoutingKey: "k", RequestId: id, Writes: []*ledgerv1.StreamWrite{w}}
}

// model is the least a shard can be: maps.
type model struct {
	last     map[string]int64
	requests map[string]int
}

// Whatever an owner decides, a replica accepts; conflicts are exactly those a
// map of revisions predicts; a request id appends once. The owner decides
// ahead of a replica that lags by any amount.
func TestOwnerAndReplicaAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := model{last: map[string]int64{}, requests: map[string]int{}}
		replicaHead := core.Head{Log: "claims", Shard: 1, Term: 1, Owner: "o"}
		replicaView := core.NewOverlay(ground{}) // never settled: it holds all
		ownerHead := replicaHead
		ownerView := core.NewOverlay(replicaView)
		var topic [][]byte
		follow := func(n int) {
			for range n {
				j, err := core.Judge(replicaHead, replicaView, topic[replicaHead.Next])
				if err != nil || j.Verdict != core.Accepted {
					t.Fatalf("the replica refuses what the owner wrote: %v %v", j.Verdict, err)
				}
				replicaView.Add(j.Commit, j.Seen)
				replicaHead = j.Head
			}
			ownerView.Settle(replicaHead.Next)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			stream := rapid.SampledFrom([]string{"claim-a", "claim-b", "claim-c"}).Draw(t, "stream")
			expected := int64(rapid.IntRange(-2, 4).Draw(t, "expected"))
			id := fmt.Sprint("r", rapid.IntRange(0, 40).Draw(t, "id"))
			events := make([]string, rapid.IntRange(1, 3).Draw(t, "events"))
			r := request(id, stream, expected, events...)
			d, err := core.Decide(ownerHead, ownerView, r, core.Provenance{Recorded: noon})
			last, exists := m.last[stream]
			if !exists {
				last = -1
			}
			index, seen := m.requests[id]
			var conflict *core.ConflictError
			switch {
			case seen && err == nil:
				if !d.Replayed || d.Seen.Index != uint64(index) {
					t.Fatalf("request %s answered %+v, first was %d", id, d, index)
				}
			case seen:
				if !problem.Is(err, problem.Conflict) {
					t.Fatalf("reuse of %s answered %v", id, err)
				}
			case expected != core.Any && expected != last:
				if !errors.As(err, &conflict) || conflict.Actual != last || conflict.Stream != stream {
					t.Fatalf("expected a conflict at %d, got %v", last, err)
				}
			default:
				if err != nil || d.Seen.Index != uint64(len(topic)) {
					t.Fatalf("refused: %v", err)
				}
				topic = append(topic, d.Value)
				ownerHead.Next++
				ownerView.Add(d.Commit, d.Seen)
				m.last[stream] = last + int64(len(events))
				m.requests[id] = len(topic) - 1
				if d.Seen.Revisions[0] != uint64(m.last[stream]) {
					t.Fatalf("revision %d, want %d", d.Seen.Revisions[0], m.last[stream])
				}
			}
			follow(rapid.IntRange(0, len(topic)-int(replicaHead.Next)).Draw(t, "follow"))
		}
		follow(len(topic) - int(replicaHead.Next))
		if ownerView.Len() != 0 {
			t.Fatal("the overlay keeps what the replica holds")
		}
	})
}

func decided(t *testing.T, h core.Head, r *ledgerv1.AppendRequest) *ledgerv1.Commit {
	d, err := core.Decide(h, core.NewOverlay(ground{}), r, core.Provenance{Recorded: noon})
	require.NoError(t, err)
	return d.Commit
}

func TestARecordThatBreaksARuleIsNamed(t *testing.T) {
	head := core.Head{Log: "claims", Shard: 1, Next: 3, Term: 5, Owner: "o"}
	for rule, spoil := range map[string]func(c *ledgerv1.Commit){
		"ledger.record.format":     func(c *ledgerv1.Commit) { c.Format = 3 },
		"ledger.record.shard":      func(c *ledgerv1.Commit) { c.Shard = 2 },
		"ledger.record.request-id": func(c *ledgerv1.Commit) { c.RequestId = "" },
		"ledger.commit.term":       func(c *ledgerv1.Commit) { c.Term = 6 },
		"ledger.commit.index":      func(c *ledgerv1.Commit) { c.Index = 4 },
		"ledger.commit.writes":     func(c *ledgerv1.Commit) { c.Writes = nil },
		"ledger.commit.stream":     func(c *ledgerv1.Commit) { c.Writes = append(c.Writes, c.Writes[0]) },
		"ledger.commit.revision":   func(c *ledgerv1.Commit) { c.Writes[0].FirstRevision = 1 },
		"ledger.barrier.writes":    func(c *ledgerv1.Commit) { c.Barrier = true },
	} {
		c := decided(t, head, request("r", "claim-secret", -1, "payload"))
		spoil(c)
		value, err := proto.Marshal(c)
		require.NoError(t, err)
		_, err = core.Judge(head, core.NewOverlay(ground{}), value)
		var v *core.Violation
		require.ErrorAs(t, err, &v, rule)
		require.Equal(t, rule, v.Rule)
		require.NotContains(t, v.Error(), "payload")
	}
	_, err := core.Judge(head, ground{}, []byte{0xff})
	require.ErrorContains(t, err, "ledger.record.encoding")
}

// Given a barrier, which no leaf covers, when any one bit of it flips, then
// it's no valid record: its owner, its index and its time are as safe as a
// commit's.
func TestABarrierCoversItself(t *testing.T) {
	head := core.Head{Log: "claims", Shard: 1, Next: 3, Term: 5, Owner: "o"}
	for _, term := range []uint64{4, 5, 6} {
		sound, err := core.Barrier("claims", 1, term, 3, "o", noon)
		require.NoError(t, err)
		_, err = core.Judge(head, ground{}, sound)
		require.NoError(t, err)
		for bit := range 8 * len(sound) {
			flipped := slices.Clone(sound)
			flipped[bit/8] ^= 1 << (bit % 8)
			_, err := core.Judge(head, core.NewOverlay(ground{}), flipped)
			var v *core.Violation
			require.ErrorAs(t, err, &v, "bit %d", bit)
		}
		_, err = core.Judge(head, ground{}, sound[:len(sound)-34])
		require.ErrorContains(t, err, "ledger.barrier.digest")
	}
}

func TestTermsDepose(t *testing.T) {
	head := core.Head{Log: "claims", Shard: 1, Next: 3, Term: 5, Owner: "old"}
	judge := func(value []byte, err error) core.Judged {
		require.NoError(t, err)
		j, err := core.Judge(head, core.NewOverlay(ground{}), value)
		require.NoError(t, err)
		return j
	}
	late := decided(t, head, request("late", "claim-a", -1, "x"))

	j := judge(core.Barrier("claims", 1, 5, 3, "old", noon))
	require.Equal(t, core.Heartbeat, j.Verdict)
	j = judge(core.Barrier("claims", 1, 5, 3, "rival", noon))
	require.Equal(t, core.Void, j.Verdict, "a term is one owner's alone")
	j = judge(core.Barrier("claims", 1, 6, 3, "new", noon))
	require.Equal(t, core.Raised, j.Verdict)
	require.Equal(t, core.Head{Log: "claims", Shard: 1, Next: 3, Term: 6, Owner: "new"}, j.Head)

	head = j.Head
	j = judge(proto.Marshal(late))
	require.Equal(t, core.Void, j.Verdict, "the deposed owner's late record")
	require.Equal(t, head, j.Head, "takes no index")
	j = judge(core.Barrier("claims", 1, 5, 3, "old", noon))
	require.Equal(t, core.Void, j.Verdict)
}

func TestRoutingIsPartOfTheLedger(t *testing.T) {
	// These answers are what streams already written depend on.
	// Worked out with sha256sum and long division.
	require.Equal(t, uint32(0), core.Route("member-7", 4))
	require.Equal(t, uint32(1), core.Route("member-7", 7))
	require.Equal(t, uint32(0), core.Route("anything", 1))
	counts := make([]int, 8)
	for i := range 8000 {
		counts[core.Route(fmt.Sprint("k", i), 8)]++
	}
	for _, n := range counts {
		require.InDelta(t, 1000, n, 200)
	}
	require.NotContains(t, string(core.RecordKey("o", "member-7")), "member")
	require.NotEqual(t, core.RecordKey("o", "member-7"), core.RecordKey("p", "member-7"))
}

func TestTokensRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := rapid.StringMatching(`[a-z]{1,32}`).Draw(t, "log")
		shard, index := rapid.Uint32().Draw(t, "shard"), rapid.Uint64Max(1<<63-1).Draw(t, "index")
		l, s, i, err := core.ParseToken(core.Token(log, shard, index))
		if err != nil || l != log || s != shard || i != index {
			t.Fatal(l, s, i, err)
		}
	})
	for _, bad := range []string{"", "v1:", "v1:claims/0", "v1:claims/0/01", "v2:claims/0/1", "v1:CLAIMS/0/1", "v1:claims/0/-1", "v1:claims/0/1/2"} {
		_, _, _, err := core.ParseToken(bad)
		require.True(t, problem.Is(err, problem.Invalid), bad)
	}
}

func TestStreamNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"claim-1": true, "c-x": true, "a1-A.b_c:d-e": true, "claim-": false, "-1": false, "": false, "1a-x": false,
		"Claim-1": false, "claim-a b": false, "claim-é": false, "claim-\x00": false, "claim": false,
	} {
		require.Equal(t, ok, core.ValidStream(name), name)
	}
	rule := regexp.MustCompile(`^[a-z][a-z0-9]*-[A-Za-z0-9_.:-]{1,120}\z`)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(
			rapid.StringOf(rapid.SampledFrom([]rune("az09AZ_.:-/ é\n"))),
			rapid.StringMatching(`[a-z0-9]{0,3}-[A-Za-z0-9_.:-]{118,122}`),
			rapid.StringMatching(`[a-z0-9]{1,5}-[A-Za-z0-9_.:-]{1,5}`),
		).Draw(t, "name")
		if core.ValidStream(name) != rule.MatchString(name) {
			t.Fatalf("%q", name)
		}
	})
}

func FuzzJudge(f *testing.F) {
	head := core.Head{Log: "claims", Shard: 1, Next: 3, Term: 5, Owner: "o"}
	d, err := core.Decide(head, ground{}, request("r", "claim-a", -1, "x"), core.Provenance{Recorded: noon})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.Value)
	barrier, _ := core.Barrier("claims", 1, 6, 3, "n", noon)
	f.Add(barrier)
	f.Fuzz(func(t *testing.T, value []byte) {
		j, err := core.Judge(head, ground{}, value)
		var v *core.Violation
		if err != nil && !errors.As(err, &v) {
			t.Fatalf("neither verdict nor violation: %v", err)
		}
		if err == nil && j.Verdict == core.Accepted && (j.Head.Next != 4 || j.Head.Term != 5) {
			t.Fatalf("accepted with head %+v", j.Head)
		}
	})
}
