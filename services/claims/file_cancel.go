package claims

import (
	"context"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// A file is canceled in two steps. FileCancelRequested: from then on no chunk
// is begun, while a chunk that an earlier call may have decided in part is
// brought to its end, since a claim that was accepted is decided. FileCanceled
// closes the file: every ordinal without an outcome is not processed. An
// outcome that is recorded even later takes its ordinal's place, so the list
// never denies a claim that exists.

// Cancel decides on a cancel: once, and only while the file is being decided.
func (f *FileRecord) Cancel() ([]proto.Message, error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	switch f.File.GetState() {
	case claimsv1.FileState_FILE_STATE_CANCELING, claimsv1.FileState_FILE_STATE_CANCELED:
		return nil, nil
	case claimsv1.FileState_FILE_STATE_COMPLETE:
		return nil, problem.New(problem.Conflict, problem.Problem{
			RuleID: "files.cancel.complete", FieldPath: "file_id", Message: "every claim of the file has an outcome: nothing is left to cancel",
			Fix: "to take a decided claim back, void it: probity claims void CLAIM_ID",
		})
	}
	return []proto.Message{&eventsv1.FileCancelRequested{}}, nil
}

type closing struct{ events []proto.Message }

// closeCanceled decides on closing a file whose cancel was asked for; nil
// where none was, or where it came too late and every claim has an outcome.
func (f *FileRecord) closeCanceled(remittances []string) *closing {
	switch f.File.GetState() {
	case claimsv1.FileState_FILE_STATE_CANCELING:
		missing := f.missing()
		if len(missing) == 0 {
			return nil
		}
		return &closing{[]proto.Message{&eventsv1.FileCanceled{NotProcessed: missing, RemittanceIds: remittances}}}
	case claimsv1.FileState_FILE_STATE_CANCELED:
		if len(union(f.File.GetRemittanceIds(), remittances)) == len(f.File.GetRemittanceIds()) {
			return &closing{}
		}
		return &closing{[]proto.Message{&eventsv1.FileCanceled{RemittanceIds: remittances}}}
	}
	return nil
}

// missing are the ordinals without an outcome, as runs in order.
func (f *FileRecord) missing() []*eventsv1.OrdinalRun {
	var runs []*eventsv1.OrdinalRun
	for ordinal := range f.File.GetClaimCount() {
		if _, have := f.Outcomes[ordinal]; have {
			continue
		}
		if last := len(runs) - 1; last >= 0 && runs[last].First+runs[last].Count == ordinal {
			runs[last].Count++
			continue
		}
		runs = append(runs, &eventsv1.OrdinalRun{First: ordinal, Count: 1})
	}
	return runs
}

func (f *FileRecord) evolveCanceled(e *eventsv1.FileCanceled, r eventstore.Recorded) {
	f.File.State = claimsv1.FileState_FILE_STATE_CANCELED
	f.File.RemittanceIds = union(f.File.GetRemittanceIds(), e.GetRemittanceIds())
	if len(e.GetNotProcessed()) == 0 {
		return
	}
	f.NotProcessed = e.GetNotProcessed()
	f.countOutcomes()
	f.File.CompletedTime = timestamppb.New(r.RecordedTime)
}

func countRuns(runs []*eventsv1.OrdinalRun) (n int64) {
	for _, r := range runs {
		n += int64(r.GetCount())
	}
	return n
}

// countOutcomes counts those of all kinds, and those of a canceled file's rest.
func (f *FileRecord) countOutcomes() {
	f.File.OutcomeCount = uint32(len(f.Outcomes))
	if len(f.NotProcessed) > 0 {
		f.File.NotProcessedCount = f.File.GetClaimCount() - f.File.GetOutcomeCount()
		f.File.OutcomeCount = f.File.GetClaimCount()
	}
}

// notProcessed are the outcomes of a canceled file's rest.
func (f *FileRecord) notProcessed() []*claimsv1.ClaimOutcome {
	var out []*claimsv1.ClaimOutcome
	for _, run := range f.NotProcessed {
		for ordinal := run.GetFirst(); ordinal < run.GetFirst()+run.GetCount(); ordinal++ {
			if _, have := f.Outcomes[ordinal]; !have {
				out = append(out, &claimsv1.ClaimOutcome{Ordinal: ordinal, Status: claimsv1.ClaimStatus_CLAIM_STATUS_NOT_PROCESSED})
			}
		}
	}
	return out
}

// outcome returns what became of one ordinal; nil when nothing yet.
func (f *FileRecord) outcome(ordinal uint32) *claimsv1.ClaimOutcome {
	if o, have := f.Outcomes[ordinal]; have {
		return o
	}
	for _, run := range f.NotProcessed {
		if ordinal >= run.GetFirst() && ordinal-run.GetFirst() < run.GetCount() {
			return &claimsv1.ClaimOutcome{Ordinal: ordinal, Status: claimsv1.ClaimStatus_CLAIM_STATUS_NOT_PROCESSED}
		}
	}
	return nil
}

// CancelFile implements claimsv1connect.FileServiceHandler.
func (s *Service) CancelFile(ctx context.Context, req *claimsv1.CancelFileRequest) (*claimsv1.CancelFileResponse, error) {
	file, _, err := s.changeFile(ctx, "CancelFile", req.GetFileId(), (*FileRecord).Cancel)
	if err != nil {
		return nil, hide("file", err)
	}
	return &claimsv1.CancelFileResponse{File: file}, nil
}

const (
	defaultOutcomes = 500
	maxOutcomes     = 5000
)

// ListFileOutcomes implements claimsv1connect.FileServiceHandler. The page
// token is the first ordinal not looked at: an outcome keeps its ordinal, so
// pages neither repeat nor skip one.
func (s *Service) ListFileOutcomes(ctx context.Context, req *claimsv1.ListFileOutcomesRequest) (*claimsv1.ListFileOutcomesResponse, error) {
	var from uint64
	if token := req.GetPageToken(); token != "" {
		var err error
		if from, err = strconv.ParseUint(token, 10, 32); err != nil {
			return nil, problem.Invalidf("files.outcomes.page-token", "page_token", "the page token is not one that this list gave")
		}
	}
	size := min(int(req.GetPageSize()), maxOutcomes)
	if size == 0 {
		size = defaultOutcomes
	}
	held, err := s.holdFile(ctx, req.GetFileId())
	if err != nil {
		return nil, err
	}
	defer s.files.release(held)
	if err := hide("file", s.authorizeFile(ctx, "ListFileOutcomes", req.GetFileId(), held.value)); err != nil {
		return nil, err
	}
	out := &claimsv1.ListFileOutcomesResponse{}
	count := uint64(held.value.File.GetClaimCount())
	for ; from < count && len(out.Outcomes) < size; from++ {
		if o := held.value.outcome(uint32(from)); o != nil {
			out.Outcomes = append(out.Outcomes, o)
		}
	}
	if from < count {
		out.NextPageToken = strconv.FormatUint(from, 10)
	}
	return out, nil
}
