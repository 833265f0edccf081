package ledgertest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/problem"
)

// Ledger is what a History is recorded on: a node's handler, or a client.
type Ledger interface {
	Append(context.Context, *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error)
	ReadStream(context.Context, *ledgerv1.ReadStreamRequest) (*ledgerv1.ReadStreamResponse, error)
}

// History records what clients of a ledger did and were told, to be checked
// for linearizability: that there is one order of all appends, in agreement
// with real time, which explains every answer.
//
// Each routing key has two streams, so that atomicity shows. Every append
// writes a number of its own, which is its request id too. An append whose
// outcome the client never learned may take effect at any later time, or not.
// A read is served from a replica and may be behind, but never by more than
// its token allows: it counts as if it had begun with the append that gave
// the token, and must show that append; without a token it may be of any time.
type History struct {
	log   string
	start time.Time

	mu     sync.Mutex // guards what follows
	ops    []porcupine.Operation
	number uint32
	known  map[string]knowledge // by key
	// Counts says how many operations had which outcome.
	counts map[string]int
}

// knowledge is the newest a client was told about a key.
type knowledge struct {
	token string   // of the highest index
	index uint64   // of token
	call  int64    // when token's append began
	shows [2]int64 // revisions that were acknowledged: token covers them all
	last  [2]int64 // revisions, also by what conflicts said
}

// nothing is what is known at first.
var nothing = knowledge{shows: [2]int64{-1, -1}, last: [2]int64{-1, -1}}

// NewHistory returns an empty history of a log.
func NewHistory(log string) *History {
	return &History{log: log, start: time.Now(), known: map[string]knowledge{}, counts: map[string]int{}}
}

// streams are the names of a key's two streams.
func (h *History) streams(key string) [2]string {
	return [2]string{"claim-" + key, "accumulators-" + key}
}

// appending and reading are operations' inputs; told is an append's outcome.
type appending struct {
	key      string
	number   uint32
	writes   [2]bool
	expected [2]int64
}

type reading struct {
	key    string
	stream int
	// shows is the revision that must be there; -1 is none.
	shows int64
}

type told struct {
	// conflict is the stream that was not as expected, -1 if none.
	conflict  int
	actual    int64
	revisions [2]int64
	unknown   bool
	replayed  bool
}

// numbers is a read's outcome, and a stream's state: four bytes an event.
type numbers string

func (n numbers) last() int64 { return int64(len(n)/4) - 1 }

func (n numbers) find(number uint32) int64 {
	for i := 0; i < len(n); i += 4 {
		if binary.BigEndian.Uint32([]byte(n[i:i+4])) == number {
			return int64(i / 4)
		}
	}
	return -1
}

func (n numbers) with(number uint32) numbers {
	return n + numbers(binary.BigEndian.AppendUint32(nil, number))
}

func (n numbers) String() string {
	var out []string
	for i := 0; i < len(n); i += 4 {
		out = append(out, fmt.Sprint(binary.BigEndian.Uint32([]byte(n[i:i+4]))))
	}
	return "[" + strings.Join(out, " ") + "]"
}

// streams2 is a key's state.
type streams2 [2]numbers

func keyOf(input any) string {
	if a, ok := input.(appending); ok {
		return a.key
	}
	return input.(reading).key
}

// model is the ledger as its users are told it is.
var model = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		at := map[string]int{}
		var out [][]porcupine.Operation
		for _, op := range all {
			key := keyOf(op.Input)
			if _, ok := at[key]; !ok {
				at[key] = len(out)
				out = append(out, nil)
			}
			out[at[key]] = append(out[at[key]], op)
		}
		return out
	},
	Init: func() any { return streams2{} },
	Step: func(state, input, output any) (bool, any) {
		s := state.(streams2)
		if r, ok := input.(reading); ok {
			return s[r.stream] == output.(numbers) && s[r.stream].last() >= r.shows, s
		}
		return step(s, input.(appending), output.(told))
	},
	DescribeOperation: func(input, output any) string {
		if r, ok := input.(reading); ok {
			return fmt.Sprintf("read %d, shows %d: %v", r.stream, r.shows, output)
		}
		return fmt.Sprintf("append %+v: %+v", input, output)
	},
	DescribeState: func(state any) string { return fmt.Sprint(state) },
}

func step(s streams2, a appending, t told) (bool, streams2) {
	// A request id appends once and gets its first answer ever after.
	for i, writes := range a.writes {
		if at := s[i].find(a.number); writes && at >= 0 {
			return t.unknown || t.conflict < 0 && t.replayed && t.revisions[i] == at, s
		}
	}
	next := s
	for i, writes := range a.writes {
		if !writes {
			continue
		}
		if last := s[i].last(); a.expected[i] != -2 && a.expected[i] != last {
			// Nothing is written; the first stream in the way is named.
			return t.unknown || t.conflict == i && t.actual == last, s
		}
		next[i] = s[i].with(a.number)
	}
	if t.unknown {
		return true, next
	}
	// Replayed is said of what an earlier attempt made, and of nothing else: a
	// node passes an append on again only when nothing came of it before.
	if t.conflict >= 0 || t.replayed {
		return false, s
	}
	for i, writes := range a.writes {
		if writes && t.revisions[i] != next[i].last() {
			return false, s
		}
	}
	return true, next
}

func (h *History) now() int64 { return time.Since(h.start).Nanoseconds() }

func (h *History) add(op porcupine.Operation, outcome string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
	h.counts[outcome]++
}

// Counts says how many operations had which outcome: "appended", "replayed",
// "conflict", "unknown", "read", "read failed".
func (h *History) Counts() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]int{}
	for k, v := range h.counts {
		out[k] = v
	}
	return out
}

// Load runs clients until ctx ends. Each appends and reads on few keys, so
// that they meet, and sends an append of unknown outcome again with the same
// request id. target gives the node for a client's n-th attempt.
func (h *History) Load(ctx context.Context, t *testing.T, clients, keys int, target func(client, attempt int) Ledger) {
	t.Helper()
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(client), 7)) //nolint:gosec // a test's load
			attempt := 0
			next := func() Ledger { attempt++; return target(client, attempt) }
			for ctx.Err() == nil {
				key := fmt.Sprintf("k%d", random.IntN(keys))
				if random.IntN(10) < 3 {
					h.read(ctx, t, client, key, random.IntN(2), random.IntN(2) == 0, next())
					continue
				}
				a := h.intend(key, random)
				for tries := 0; tries < 20 && !h.append(ctx, t, client, a, next()) && ctx.Err() == nil; tries++ {
					// What takes over needs a moment; hammering it serves nobody.
					wait(ctx, time.Duration(tries)*10*time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// intend makes up an append from what the clients know of a key.
func (h *History) intend(key string, random *rand.Rand) appending {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	a := appending{key: key, number: h.number}
	know, ok := h.known[key]
	if !ok {
		know.last = [2]int64{-1, -1}
	}
	switch random.IntN(3) {
	case 0:
		a.writes = [2]bool{true, true}
	case 1:
		a.writes[1] = true
	default:
		a.writes[0] = true
	}
	a.expected = know.last
	if random.IntN(5) == 0 {
		a.expected = [2]int64{-2, -2}
	}
	return a
}

// append makes one attempt and tells whether its outcome is known.
func (h *History) append(ctx context.Context, t *testing.T, client int, a appending, to Ledger) bool {
	req := &ledgerv1.AppendRequest{Log: h.log, RoutingKey: a.key, RequestId: fmt.Sprintf("%s-%d", a.key, a.number)}
	names := h.streams(a.key)
	for i, writes := range a.writes {
		if writes {
			w := write(names[i], a.expected[i], "")
			w.Events[0].Payload = binary.BigEndian.AppendUint32(nil, a.number)
			req.Writes = append(req.Writes, w)
		}
	}
	// The call outlives the load: cutting it would leave its outcome open.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	call := h.now()
	res, err := to.Append(ctx, req)
	op := porcupine.Operation{ClientId: client, Input: a, Call: call, Return: h.now()}
	out := told{conflict: -1}
	switch c := conflictOf(err); {
	case err == nil:
		out.replayed = res.Replayed
		for i, k := 0, 0; i < 2; i++ {
			if a.writes[i] {
				out.revisions[i] = int64(res.Revisions[k])
				k++
			}
		}
		op.Output = out
		outcome := "appended"
		if out.replayed {
			outcome = "replayed"
		}
		h.add(op, outcome)
		h.learn(a, out, call, res)
		return true
	case c != nil:
		out.actual = c.ActualRevision
		for i := range names {
			if names[i] == c.Stream {
				out.conflict = i
			}
		}
		op.Output = out
		h.add(op, "conflict")
		h.correct(a.key, out)
		return true
	case mayPass(err):
		out.unknown = true
		op.Output, op.Return = out, math.MaxInt64
		h.add(op, "unknown")
		return false
	default:
		t.Errorf("append %d of key %s: %v", a.number, a.key, err)
		return true
	}
}

func (h *History) learn(a appending, out told, call int64, res *ledgerv1.AppendResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	know := h.knows(a.key)
	if know.token == "" || res.Position.Index > know.index {
		know.token, know.index, know.call = res.Token, res.Position.Index, call
	}
	for i, writes := range a.writes {
		if writes {
			know.last[i] = max(know.last[i], out.revisions[i])
			know.shows[i] = max(know.shows[i], out.revisions[i])
		}
	}
	h.known[a.key] = know
}

// knows returns what is known of a key; the caller holds mu.
func (h *History) knows(key string) knowledge {
	if know, ok := h.known[key]; ok {
		return know
	}
	return nothing
}

// correct takes a conflict's word for a revision.
func (h *History) correct(key string, out told) {
	h.mu.Lock()
	defer h.mu.Unlock()
	know := h.knows(key)
	know.last[out.conflict] = out.actual
	h.known[key] = know
}

// read reads a stream, with the newest token that any client has or without.
func (h *History) read(ctx context.Context, t *testing.T, client int, key string, stream int, token bool, from Ledger) {
	op := porcupine.Operation{ClientId: client}
	in := reading{key: key, stream: stream, shows: -1}
	req := &ledgerv1.ReadStreamRequest{Log: h.log, RoutingKey: key, Stream: h.streams(key)[stream]}
	h.mu.Lock()
	if know := h.knows(key); token && know.token != "" {
		req.MinToken, op.Call, in.shows = know.token, know.call, know.shows[stream]
	}
	h.mu.Unlock()
	op.Input = in
	var got numbers
	for {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		res, err := from.ReadStream(ctx, req)
		cancel()
		if err != nil {
			if !mayPass(err) {
				t.Errorf("read of key %s: %v", key, err)
			}
			h.mu.Lock()
			h.counts["read failed"]++
			h.mu.Unlock()
			return
		}
		for _, e := range res.Events {
			if e.Revision != req.FromRevision {
				t.Errorf("read of key %s: revision %d where %d was due", key, e.Revision, req.FromRevision)
			}
			req.FromRevision++
			got += numbers(e.Event.Payload)
		}
		if res.EndOfStream {
			break
		}
	}
	op.Output, op.Return = got, h.now()
	h.add(op, "read")
}

// Check appends once more to every key and reads it back, so that nothing
// acknowledged can have gone unnoticed, and fails the test unless the whole
// history is linearizable.
func (h *History) Check(t *testing.T, target Ledger) {
	t.Helper()
	h.mu.Lock()
	var keys []string
	for key := range h.known {
		keys = append(keys, key)
	}
	h.mu.Unlock()
	final := map[string]streams2{}
	for _, key := range keys {
		h.mu.Lock()
		h.number++
		last := appending{key: key, number: h.number, writes: [2]bool{true, true}, expected: [2]int64{-2, -2}}
		h.mu.Unlock()
		require.Eventually(t, func() bool { return h.append(t.Context(), t, 0, last, target) }, 3*patience, 50*time.Millisecond)
		var s streams2
		for i := range s {
			before := h.len()
			h.read(t.Context(), t, 0, key, i, true, target)
			require.Greater(t, h.len(), before, "the last read of key %s failed", key)
			h.mu.Lock()
			s[i] = h.ops[len(h.ops)-1].Output.(numbers)
			h.mu.Unlock()
		}
		final[key] = s
	}
	require.NoError(t, h.verify(t.ArtifactDir(), final))
}

func (h *History) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// relevant leaves out attempts of unknown outcome that had no effect, or none
// that anybody can have seen, which spares the search most of its branches.
// final is every key's state at the end. Of an append's attempts
//
//   - none had an effect that the end doesn't show;
//   - none had one before a first answer, which would have been a repetition,
//     nor after it, being repetitions themselves;
//   - one had before a repetition; they are all alike, and the one that began
//     first may have taken effect at any time that the others may;
//   - none had at all when one was refused: whoever refused had read all that
//     the others could still have made.
func (h *History) relevant(final map[string]streams2) ([]porcupine.Operation, error) {
	type id struct {
		key    string
		number uint32
	}
	stands := func(a appending) bool {
		f := final[a.key]
		return f[0].find(a.number) >= 0 || f[1].find(a.number) >= 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	first, earliest := map[id]bool{}, map[id]int64{}
	for _, op := range h.ops {
		a, ok := op.Input.(appending)
		if !ok {
			continue
		}
		at, out := id{a.key, a.number}, op.Output.(told)
		switch call, seen := earliest[at]; {
		case out.unknown && (!seen || op.Call < call):
			earliest[at] = op.Call
		case out.unknown:
		case out.conflict >= 0 && stands(a):
			return nil, fmt.Errorf("the history is not linearizable: append %d of key %s was refused, and stands in the end", a.number, a.key)
		case out.conflict < 0 && !out.replayed:
			first[at] = true
		}
	}
	var ops []porcupine.Operation
	for _, op := range h.ops {
		if a, ok := op.Input.(appending); ok && op.Output.(told).unknown {
			at := id{a.key, a.number}
			if call, due := earliest[at]; !due || call != op.Call || first[at] || !stands(a) {
				continue
			}
			delete(earliest, at)
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// verify checks the history, whose end left every key in its final state. It
// leaves a picture of a history that fails in dir.
func (h *History) verify(dir string, final map[string]streams2) error {
	ops, err := h.relevant(final)
	if err != nil {
		return err
	}
	result, info := porcupine.CheckOperationsVerbose(model, ops, time.Minute)
	if result == porcupine.Ok {
		return nil
	}
	// The key at fault, operation by operation, is most of the answer. Times
	// are in microseconds.
	var text strings.Builder
	for _, part := range model.Partition(ops) {
		if porcupine.CheckOperationsTimeout(model, part, time.Minute) == porcupine.Ok {
			continue
		}
		fmt.Fprintf(&text, "key %s:\n", keyOf(part[0].Input))
		for _, op := range part {
			fmt.Fprintf(&text, "  %d..%d client %d %s\n", op.Call/1000, op.Return/1000, op.ClientId, model.DescribeOperation(op.Input, op.Output))
		}
	}
	path := filepath.Join(dir, "history.html")
	return errors.Join(
		fmt.Errorf("a history of %d operations is not linearizable (%s); go test -artifacts keeps a picture of it: %s\n%s", len(ops), result, path, text.String()),
		porcupine.VisualizePath(model, info, path),
	)
}

// conflictOf returns the Conflict detail of an error, nil if it has none.
func conflictOf(err error) *ledgerv1.Conflict {
	var c *connect.Error
	if !errors.As(err, &c) {
		return nil
	}
	for _, d := range c.Details() {
		if v, err := d.Value(); err == nil {
			if out, ok := v.(*ledgerv1.Conflict); ok {
				return out
			}
		}
	}
	return nil
}

// mayPass tells whether a failed call may succeed when it is made again. What
// it was meant to do may have been done or not.
func mayPass(err error) bool {
	var p *problem.Error
	if errors.As(err, &p) {
		return p.Kind == problem.Unavailable || p.Kind == problem.Exhausted
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted, connect.CodeCanceled, connect.CodeAborted:
		return true
	default:
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	}
}
