package claims

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

const notProcessed = claimsv1.ClaimStatus_CLAIM_STATUS_NOT_PROCESSED

// outcomesOf walks a file's outcome list, three a page.
func (w *world) outcomesOf(id string) map[uint32]claimsv1.ClaimStatus {
	w.t.Helper()
	all := map[uint32]claimsv1.ClaimStatus{}
	for token := ""; ; {
		page, err := w.ListFileOutcomes(lakeside(), &claimsv1.ListFileOutcomesRequest{FileId: id, PageSize: 3, PageToken: token})
		require.NoError(w.t, err)
		require.LessOrEqual(w.t, len(page.Outcomes), 3)
		for _, o := range page.Outcomes {
			require.NotContains(w.t, all, o.Ordinal)
			all[o.Ordinal] = o.Status
		}
		if token = page.NextPageToken; token == "" {
			return all
		}
	}
}

func TestACanceledFileIsClosedWithAnOutcomeForEveryClaim(t *testing.T) {
	w := newWorld(t, 1)
	id := w.register(lakeside(), contentOf(1, 1000), 10).File.FileId
	record := func(ordinals ...uint32) {
		t.Helper()
		var list []*claimsv1.ClaimOutcome
		for _, o := range ordinals {
			list = append(list, outcome(o, aClaim, claimsv1.ClaimStatus_CLAIM_STATUS_PAID))
		}
		_, err := w.RecordOutcomes(service(), &claimsv1.RecordOutcomesRequest{FileId: id, Outcomes: list})
		require.NoError(t, err)
	}
	// Given a file of ten claims, four of them decided.
	record(0, 1, 2, 7)

	// When somebody else cancels it, then it isn't even there; when its sender
	// does, twice, it is said once.
	_, err := w.CancelFile(otherOrg(), &claimsv1.CancelFileRequest{FileId: id})
	require.True(t, problem.Is(err, problem.NotFound), "%v", err)
	_, err = w.CancelFile(auditor(), &claimsv1.CancelFileRequest{FileId: id})
	require.Error(t, err)
	for range 2 {
		res, err := w.CancelFile(lakeside(), &claimsv1.CancelFileRequest{FileId: id})
		require.NoError(t, err)
		require.Equal(t, claimsv1.FileState_FILE_STATE_CANCELING, res.File.State)
	}
	// And a chunk that was under way is still recorded.
	record(8)
	require.Len(t, w.outcomesOf(id), 5)
	done, err := w.CompleteFile(service(), &claimsv1.CompleteFileRequest{FileId: id})
	require.NoError(t, err)

	// Then the file is canceled, what was decided stands and the rest is listed as not processed.
	require.Equal(t, claimsv1.FileState_FILE_STATE_CANCELED, done.File.State)
	require.EqualValues(t, 10, done.File.OutcomeCount)
	require.EqualValues(t, 5, done.File.NotProcessedCount)
	all := w.outcomesOf(id)
	require.Len(t, all, 10)
	for ordinal, status := range all {
		switch ordinal {
		case 0, 1, 2, 7, 8:
			require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, status, "#%d", ordinal)
		default:
			require.Equal(t, notProcessed, status, "#%d", ordinal)
		}
	}
	// And what comes even later takes its place, in this process and in the next.
	record(9)
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, w.outcomesOf(id)[9])
	second := w.start(w.index)
	got, err := second.GetFile(lakeside(), &claimsv1.GetFileRequest{FileId: id, IncludeOutcomes: true})
	require.NoError(t, err)
	require.Len(t, got.Outcomes, 10)
	require.EqualValues(t, 10, got.File.OutcomeCount)
	require.Equal(t, claimsv1.FileState_FILE_STATE_CANCELED, got.File.State)
	w.settled()
	listed, err := w.ListFiles(lakeside(), &claimsv1.ListFilesRequest{})
	require.NoError(t, err)
	require.Equal(t, claimsv1.FileState_FILE_STATE_CANCELED, listed.Files[0].State)
	require.EqualValues(t, 10, listed.Files[0].OutcomeCount)
	require.EqualValues(t, 4, listed.Files[0].NotProcessedCount, "as the record has it")
	require.EqualValues(t, 4, got.File.NotProcessedCount)
	_, err = w.ListFileOutcomes(lakeside(), &claimsv1.ListFileOutcomesRequest{FileId: id, PageToken: "x"})
	require.True(t, problem.Is(err, problem.Invalid), "%v", err)
	_, err = w.ListFileOutcomes(otherOrg(), &claimsv1.ListFileOutcomesRequest{FileId: id})
	require.True(t, problem.Is(err, problem.NotFound), "%v", err)
}

func TestACancelThatComesTooLateChangesNothing(t *testing.T) {
	w := newWorld(t, 1)
	id := w.register(lakeside(), contentOf(1, 1000), 1).File.FileId
	_, err := w.RecordOutcomes(service(), &claimsv1.RecordOutcomesRequest{FileId: id, Outcomes: []*claimsv1.ClaimOutcome{outcome(0, aClaim, claimsv1.ClaimStatus_CLAIM_STATUS_PAID)}})
	require.NoError(t, err)
	// Asked for when the last claim is decided but the file not yet complete.
	_, err = w.CancelFile(lakeside(), &claimsv1.CancelFileRequest{FileId: id})
	require.NoError(t, err)
	done, err := w.CompleteFile(service(), &claimsv1.CompleteFileRequest{FileId: id})
	require.NoError(t, err)
	require.Equal(t, claimsv1.FileState_FILE_STATE_COMPLETE, done.File.State)

	_, err = w.CancelFile(lakeside(), &claimsv1.CancelFileRequest{FileId: id})
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
	require.Contains(t, problem.As(err).Problems[0].Fix, "void")
}

func TestAnyOrderOfOutcomesCancelAndClosingLeavesOneOutcomeAClaim(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const claims = 8
		f := NewFileRecord()
		apply := func(events []proto.Message, err error) {
			require.NoError(t, err)
			for _, e := range events {
				f.Evolve(eventstore.Recorded{Event: e, Revision: uint64(f.Revision + 1), RecordedTime: time.Unix(1, 0)})
			}
		}
		f.Evolve(eventstore.Recorded{Event: &eventsv1.FileReceived{File: &claimsv1.File{ClaimCount: claims, State: claimsv1.FileState_FILE_STATE_PROCESSING}}})
		recorded := map[uint32]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				o := rapid.Uint32Range(0, claims-1).Draw(t, "ordinal")
				apply(f.Record([]*claimsv1.ClaimOutcome{outcome(o, aClaim, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED)}))
				recorded[o] = true
			case 2:
				if f.File.GetState() != claimsv1.FileState_FILE_STATE_COMPLETE {
					apply(f.Cancel())
				}
			case 3:
				if events, err := f.Complete([]string{rapid.StringMatching(`rem_[a-c]`).Draw(t, "remittance")}); err == nil {
					apply(events, nil)
				}
			}
		}
		closed := f.File.GetState() == claimsv1.FileState_FILE_STATE_CANCELED
		list := f.Ordered()
		for i, o := range list {
			require.True(t, i == 0 || list[i-1].GetOrdinal() < o.GetOrdinal(), "in order, each once")
			require.Equal(t, !recorded[o.GetOrdinal()], o.GetStatus() == notProcessed)
			require.True(t, proto.Equal(o, f.outcome(o.GetOrdinal())))
		}
		if closed {
			require.Len(t, list, claims)
		} else {
			require.Len(t, list, len(recorded))
		}
		require.EqualValues(t, len(list), f.File.GetOutcomeCount())
	})
}
