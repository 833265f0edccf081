package claims

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// FileRecord is one file as its stream tells it; the zero value doesn't
// exist. Outcomes only ever grow: an ordinal that has an outcome keeps it.
type FileRecord struct {
	File     *claimsv1.File
	Parts    uint32 // FileContent events of its content stream
	Outcomes map[uint32]*claimsv1.ClaimOutcome
	Runs     []*eventsv1.FileRemittancesPlanned
	// NotProcessed are the ordinals without outcome when the file was closed
	// after a cancel, in order; see file_cancel.go.
	NotProcessed []*eventsv1.OrdinalRun
	Revision     int64
}

// NewFileRecord is the file that doesn't exist yet.
func NewFileRecord() *FileRecord {
	return &FileRecord{Revision: eventstore.NoStream, Outcomes: map[uint32]*claimsv1.ClaimOutcome{}}
}

// Exists tells whether anything is recorded of the file.
func (f *FileRecord) Exists() bool { return f.File != nil }

// Evolve applies one recorded event in place; the caller owns f.
func (f *FileRecord) Evolve(r eventstore.Recorded) {
	switch e := r.Event.(type) {
	case *eventsv1.FileReceived:
		f.File = fileOfReceived(e, r)
		f.Parts = e.GetContentParts()
	case *eventsv1.FileOutcomesRecorded:
		for _, o := range e.GetOutcomes() {
			if _, have := f.Outcomes[o.GetOrdinal()]; !have {
				f.Outcomes[o.GetOrdinal()] = o
				f.tally(o.GetStatus())
			}
		}
		f.countOutcomes()
		f.File.CompletedTime = timestamppb.New(r.RecordedTime)
	case *eventsv1.FileRemittancesPlanned:
		f.Runs = append(f.Runs, e)
	case *eventsv1.FileCompleted:
		f.File.State = claimsv1.FileState_FILE_STATE_COMPLETE
		f.File.RemittanceIds = union(f.File.GetRemittanceIds(), e.GetRemittanceIds())
	case *eventsv1.FileCancelRequested:
		f.File.State = claimsv1.FileState_FILE_STATE_CANCELING
	case *eventsv1.FileCanceled:
		f.evolveCanceled(e, r)
	}
	f.Revision = int64(r.Revision)
}

func (f *FileRecord) tally(status claimsv1.ClaimStatus) {
	switch status {
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID:
		f.File.PaidCount++
	case claimsv1.ClaimStatus_CLAIM_STATUS_DENIED:
		f.File.DeniedCount++
	case claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		f.File.PendedCount++
	case claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED:
		f.File.RejectedCount++
	}
}

// Ordered returns the outcomes by ordinal.
func (f *FileRecord) Ordered() []*claimsv1.ClaimOutcome {
	out := make([]*claimsv1.ClaimOutcome, 0, len(f.Outcomes))
	for _, o := range f.Outcomes {
		out = append(out, o)
	}
	out = append(out, f.notProcessed()...)
	slices.SortFunc(out, func(a, b *claimsv1.ClaimOutcome) int { return int(a.GetOrdinal()) - int(b.GetOrdinal()) })
	return out
}

// View returns what is told of the file: a copy.
func (f *FileRecord) View() *claimsv1.File { return proto.CloneOf(f.File) }

// Register decides on a file's receipt. A file that was refused whole may
// come again, since the next reading of the same bytes may know better; a file
// that was accepted is only ever a duplicate, which is no event.
func (f *FileRecord) Register(received *eventsv1.FileReceived) []proto.Message {
	refused := received.GetFile().GetState() == claimsv1.FileState_FILE_STATE_REFUSED
	if f.Exists() && (refused || f.File.GetState() != claimsv1.FileState_FILE_STATE_REFUSED) {
		return nil
	}
	return []proto.Message{received}
}

// Record decides on outcomes: those that are new are recorded, those that are
// known are passed over, and an ordinal that the file doesn't have is refused.
func (f *FileRecord) Record(outcomes []*claimsv1.ClaimOutcome) ([]proto.Message, error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	var fresh []*claimsv1.ClaimOutcome
	seen := map[uint32]bool{}
	for _, o := range outcomes {
		if o.GetOrdinal() >= f.File.GetClaimCount() {
			return nil, problem.Invalidf("files.outcome.ordinal", "outcomes.ordinal", "the file has %d claims, counted from 0", f.File.GetClaimCount())
		}
		switch o.GetStatus() {
		case claimsv1.ClaimStatus_CLAIM_STATUS_PAID, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
			if !isID("clm", o.GetClaimId()) {
				return nil, problem.Invalidf("files.outcome.claim", "outcomes.claim_id", "the outcome of an adjudicated claim names the claim")
			}
		case claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED:
		default:
			return nil, problem.Invalidf("files.outcome.status", "outcomes.status", "an outcome is paid, denied, pended or rejected")
		}
		if _, have := f.Outcomes[o.GetOrdinal()]; !have && !seen[o.GetOrdinal()] {
			seen[o.GetOrdinal()] = true
			fresh = append(fresh, o)
		}
	}
	if len(fresh) == 0 {
		return nil, nil
	}
	return []proto.Message{&eventsv1.FileOutcomesRecorded{Outcomes: fresh}}, nil
}

// Complete decides that a file is done: only when every claim has an outcome.
// Completing again is nothing new unless more remittances were made.
func (f *FileRecord) Complete(remittances []string) ([]proto.Message, error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	if closed := f.closeCanceled(remittances); closed != nil {
		return closed.events, nil
	}
	if have, want := f.File.GetOutcomeCount(), f.File.GetClaimCount(); have < want {
		return nil, conflict("files.complete.early", "some claims of the file have no outcome yet")
	}
	if f.File.GetState() == claimsv1.FileState_FILE_STATE_COMPLETE &&
		len(union(f.File.GetRemittanceIds(), remittances)) == len(f.File.GetRemittanceIds()) {
		return nil, nil
	}
	return []proto.Message{&eventsv1.FileCompleted{RemittanceIds: remittances}}, nil
}

// Plan decides that a run over the file makes these remittances.
func (f *FileRecord) Plan(requestID string, remittances []string) ([]proto.Message, error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	if f.Run(requestID) != nil {
		return nil, nil
	}
	return []proto.Message{&eventsv1.FileRemittancesPlanned{RequestId: requestID, RemittanceIds: remittances}}, nil
}

// Run returns the run of a request id; nil when there was none.
func (f *FileRecord) Run(requestID string) *eventsv1.FileRemittancesPlanned {
	for _, r := range f.Runs {
		if r.GetRequestId() == requestID {
			return r
		}
	}
	return nil
}

// open refuses what can only be done to an accepted file.
func (f *FileRecord) open() error {
	switch {
	case !f.Exists():
		return notFound("file")
	case f.File.GetState() == claimsv1.FileState_FILE_STATE_REFUSED:
		return conflict("files.refused", "the file was refused whole; nothing of it is adjudicated")
	}
	return nil
}

// fileOfReceived is the file as its receipt tells it.
func fileOfReceived(e *eventsv1.FileReceived, r eventstore.Recorded) *claimsv1.File {
	f := proto.CloneOf(e.GetFile())
	f.Position = positionProto(r.Position)
	return f
}

// union appends to a what b has more, keeping order.
func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
