package claims

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// contentOf is size bytes that hardly compress, always the same for a seed.
func contentOf(seed uint64, size int) []byte {
	b := make([]byte, size)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func header(content []byte, claims uint32) *claimsv1.FileHeader {
	sum := sha256.Sum256(content)
	return &claimsv1.FileHeader{RequestId: "f1", Sha256: sum[:], SizeBytes: uint64(len(content)), ClaimCount: claims, Kind: "837P", InterchangeControlNumber: "000000001"}
}

// errHangUp is a sender that goes away in the middle.
var errHangUp = errors.New("connection reset")

// sending is an upload's messages; with cut at 0 or more the sender hangs up after that many bytes.
func sending(h *claimsv1.FileHeader, content []byte, cut int) func() (*claimsv1.RegisterFileRequest, error) {
	started, sent := false, 0
	return func() (*claimsv1.RegisterFileRequest, error) {
		switch {
		case !started:
			started = true
			return &claimsv1.RegisterFileRequest{Part: &claimsv1.RegisterFileRequest_Header{Header: h}}, nil
		case cut >= 0 && sent >= cut:
			return nil, errHangUp
		case sent == len(content):
			return nil, io.EOF
		}
		n := min(100_000, len(content)-sent)
		sent += n
		return &claimsv1.RegisterFileRequest{Part: &claimsv1.RegisterFileRequest_Data{Data: content[sent-n : sent]}}, nil
	}
}

func (w *world) register(ctx context.Context, content []byte, claims uint32) *claimsv1.RegisterFileResponse {
	w.t.Helper()
	res, err := w.registerFile(ctx, sending(header(content, claims), content, -1))
	require.NoError(w.t, err)
	return res
}

func (w *world) read(ctx context.Context, id string) ([]byte, error) {
	var out []byte
	err := w.readFile(ctx, id, func(b []byte) error { out = append(out, b...); return nil })
	return out, err
}

func TestAFileIsSealedRecordedAndReadBack(t *testing.T) {
	w := newWorld(t, 1)
	for _, size := range []int{1, rawPart - 1, rawPart, 3*rawPart + 17} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			content := contentOf(uint64(size), size)
			res := w.register(lakeside(), content, 3)
			require.False(t, res.Duplicate)
			require.True(t, isID("fil", res.File.FileId))
			require.Equal(t, claimsv1.FileState_FILE_STATE_PROCESSING, res.File.State)
			require.Equal(t, "prov-lakeside", res.File.SubmitterOrg)

			got, err := w.read(lakeside(), res.File.FileId)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, got))
			_, err = w.read(otherOrg(), res.File.FileId)
			require.True(t, problem.Is(err, problem.NotFound), "%v", err)
		})
	}
}

func TestTheSameBytesOfTheSameSenderAreOneFile(t *testing.T) {
	w := newWorld(t, 1)
	content := contentOf(1, 1000)
	first := w.register(lakeside(), content, 3)
	before := len(w.events())

	again := w.register(lakeside(), content, 3)
	require.True(t, again.Duplicate)
	require.True(t, proto.Equal(first.File, again.File))
	require.Equal(t, first.Token, again.Token)
	require.Len(t, w.events(), before)

	other := w.register(otherOrg(), content, 3)
	require.False(t, other.Duplicate)
	require.NotEqual(t, first.File.FileId, other.File.FileId)
}

func TestAFileThatIsNotWhatItSaysLeavesNothing(t *testing.T) {
	w := newWorld(t, 1, func(d *Deps) { d.Config.MaxFileBytes = 3 << 20 })
	content := contentOf(1, 900_000)
	for name, upload := range map[string]func() (*claimsv1.RegisterFileRequest, error){
		"wrong hash":    sending(header(contentOf(2, 900_000), 1), content, -1),
		"cut short":     sending(header(content, 1), content[:800_000], -1),
		"hung up":       sending(header(content, 1), content, 700_000),
		"says too much": sending(&claimsv1.FileHeader{RequestId: "r", Sha256: make([]byte, 32), SizeBytes: 4 << 20, ClaimCount: 1}, nil, -1),
		"is too much":   sending(header(content, 1), contentOf(1, 4<<20), -1),
		"no header":     func() (*claimsv1.RegisterFileRequest, error) { return nil, io.EOF },
		"no claims":     sending(header(content, 0), content, -1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.registerFile(lakeside(), upload)
			require.Error(t, err)
			require.Empty(t, w.events())
		})
	}
	// and the right bytes come in afterwards
	require.False(t, w.register(lakeside(), content, 1).Duplicate)
}

// flaky fails the n-th append from now, with or without recording it.
type flaky struct {
	*eventstore.Memory
	after int
	fault eventstore.Fault
}

func (f *flaky) Append(ctx context.Context, c eventstore.Commit) (eventstore.Appended, error) {
	if f.after == 0 {
		f.Inject(f.fault)
	}
	f.after--
	return f.Memory.Append(ctx, c)
}

func (f *flaky) AppendBatch(ctx context.Context, cs []eventstore.Commit) ([]eventstore.Outcome, error) {
	out := make([]eventstore.Outcome, len(cs))
	for i, c := range cs {
		out[i].Appended, out[i].Err = f.Append(ctx, c)
	}
	return out, nil
}

func TestAnUploadThatBrokeOffIsCompletedByRepeatingIt(t *testing.T) {
	content := contentOf(3, 5*rawPart+99)
	for _, fault := range []eventstore.Fault{eventstore.FaultRefused, eventstore.FaultLostAck} {
		for after := range 8 {
			t.Run(fmt.Sprintf("fault %d at append %d", fault, after), func(t *testing.T) {
				store := &flaky{after: after, fault: fault}
				w := newWorld(t, 1, func(d *Deps) {
					store.Memory = d.Store.(*eventstore.Memory)
					d.Store = store
				})
				res, err := w.registerFile(lakeside(), sending(header(content, 2), content, -1))
				if err != nil {
					require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
					res = w.register(lakeside(), content, 2)
				}
				got, err := w.read(lakeside(), res.File.FileId)
				require.NoError(t, err)
				require.True(t, bytes.Equal(content, got))
				parts := 0
				for _, r := range w.events() {
					if _, ok := r.Event.(*eventsv1.FileContent); ok {
						parts++
					}
				}
				require.Equal(t, 6, parts, "each part once")
			})
		}
	}
}

func TestARefusedFileIsRecordedWithItsReasonsAndMayComeAgain(t *testing.T) {
	w := newWorld(t, 1)
	content := contentOf(1, 500)
	h := header(content, 0)
	h.Problems = []*problemv1.Problem{{RuleId: "x12.envelope.se-count", Message: "the SE count differs"}}
	res, err := w.registerFile(lakeside(), sending(h, content, -1))
	require.NoError(t, err)
	require.Equal(t, claimsv1.FileState_FILE_STATE_REFUSED, res.File.State)
	require.Len(t, w.events(), 1, "without its content")

	again, err := w.registerFile(lakeside(), sending(h, content, -1))
	require.NoError(t, err)
	require.True(t, again.Duplicate)
	got, err := w.GetFile(lakeside(), &claimsv1.GetFileRequest{FileId: res.File.FileId})
	require.NoError(t, err)
	require.Equal(t, "x12.envelope.se-count", got.File.Problems[0].RuleId)
	_, err = w.SubmitClaim(service(), &claimsv1.SubmitClaimRequest{RequestId: "r", Claim: visit(0, "2026-02-10"), FileId: res.File.FileId})
	require.True(t, problem.Is(err, problem.Conflict), "nothing of it is adjudicated: %v", err)

	// a later reading of the same bytes knows better
	better := w.register(lakeside(), content, 1)
	require.False(t, better.Duplicate)
	require.Equal(t, claimsv1.FileState_FILE_STATE_PROCESSING, better.File.State)
}

func outcome(ordinal uint32, claim string, status claimsv1.ClaimStatus) *claimsv1.ClaimOutcome {
	return &claimsv1.ClaimOutcome{Ordinal: ordinal, ClaimId: claim, Status: status}
}

func TestOutcomesAreRecordedOnceAnOrdinalAndCompleteTheFile(t *testing.T) {
	w := newWorld(t, 1)
	id := w.register(lakeside(), contentOf(1, 100), 3).File.FileId
	record := func(outcomes ...*claimsv1.ClaimOutcome) (uint32, error) {
		res, err := w.RecordOutcomes(service(), &claimsv1.RecordOutcomesRequest{FileId: id, Outcomes: outcomes})
		return res.GetOutcomeCount(), err
	}
	n, err := record(outcome(0, aClaim, paid), outcome(1, "", claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED))
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	n, err = record(outcome(0, aClaim, denied), outcome(1, aClaim, paid))
	require.NoError(t, err)
	require.EqualValues(t, 2, n, "what has an outcome keeps it")
	_, err = w.CompleteFile(service(), &claimsv1.CompleteFileRequest{FileId: id})
	require.True(t, problem.Is(err, problem.Conflict), "not before its time: %v", err)
	_, err = record(outcome(3, aClaim, paid))
	require.True(t, problem.Is(err, problem.Invalid), "no such ordinal: %v", err)
	_, err = w.RecordOutcomes(lakeside(), &claimsv1.RecordOutcomesRequest{FileId: id, Outcomes: []*claimsv1.ClaimOutcome{outcome(2, aClaim, paid)}})
	require.True(t, problem.Is(err, problem.Forbidden), "%v", err)

	// another process records the last one; this one's record is behind and catches up
	second := w.start(w.index)
	_, err = second.RecordOutcomes(service(), &claimsv1.RecordOutcomesRequest{FileId: id, Outcomes: []*claimsv1.ClaimOutcome{outcome(2, aClaim, pended)}})
	require.NoError(t, err)
	done, err := w.CompleteFile(service(), &claimsv1.CompleteFileRequest{FileId: id})
	require.NoError(t, err)
	require.Equal(t, claimsv1.FileState_FILE_STATE_COMPLETE, done.File.State)
	before := len(w.events())
	_, err = second.CompleteFile(service(), &claimsv1.CompleteFileRequest{FileId: id})
	require.NoError(t, err)
	require.Len(t, w.events(), before)

	got, err := w.GetFile(auditor(), &claimsv1.GetFileRequest{FileId: id, IncludeOutcomes: true})
	require.NoError(t, err)
	statuses := []claimsv1.ClaimStatus{}
	for _, o := range got.Outcomes {
		statuses = append(statuses, o.Status)
	}
	require.Equal(t, []claimsv1.ClaimStatus{paid, claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED, pended}, statuses)
}

func TestOutcomesInAnyChunksAndOrderAreEachOrdinalsFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := NewFileRecord()
		f.Evolve(eventstore.Recorded{Event: &eventsv1.FileReceived{File: &claimsv1.File{ClaimCount: 10}}})
		first := map[uint32]claimsv1.ClaimStatus{}
		for range rapid.IntRange(1, 20).Draw(t, "chunks") {
			chunk := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *claimsv1.ClaimOutcome {
				return outcome(rapid.Uint32Range(0, 9).Draw(t, "ordinal"), aClaim, rapid.SampledFrom([]claimsv1.ClaimStatus{paid, denied, pended}).Draw(t, "status"))
			}), 1, 6).Draw(t, "chunk")
			events, err := f.Record(chunk)
			require.NoError(t, err)
			for _, o := range chunk {
				if _, have := first[o.Ordinal]; !have {
					first[o.Ordinal] = o.Status
				}
			}
			for _, e := range events {
				f.Evolve(eventstore.Recorded{Event: e, Revision: uint64(f.Revision + 1)})
			}
		}
		require.Len(t, f.Outcomes, len(first))
		for n, o := range f.Outcomes {
			require.Equal(t, first[n], o.Status)
		}
		require.EqualValues(t, len(first), f.File.OutcomeCount)
	})
}
