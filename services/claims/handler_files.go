package claims

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// holdFile takes a file's record, brought up to what the ledger says now. The
// caller releases it. A file that doesn't exist is an empty record.
func (s *Service) holdFile(ctx context.Context, id string) (*entry[*FileRecord], error) {
	return s.holdFileAt(ctx, id, eventstore.NoStream)
}

func (s *Service) holdFileAt(ctx context.Context, id string, atLeast int64) (*entry[*FileRecord], error) {
	if !isID("fil", id) {
		return nil, notFound("file")
	}
	held, err := s.files.hold(ctx, id)
	if err != nil {
		return nil, err
	}
	if held.value == nil {
		held.value = NewFileRecord()
	}
	events, err := readAtLeast(ctx, s.store, id, fileStream(id), held.value.Revision, atLeast)
	if err != nil {
		s.files.release(held)
		return nil, err
	}
	for _, r := range events {
		held.value.Evolve(r)
	}
	return held, nil
}

// changeFile decides on a file as it stands and appends what follows, again
// when another was faster. It returns the file and its revision afterwards.
// decide must not keep the record.
func (s *Service) changeFile(ctx context.Context, action, id string, decide func(*FileRecord) ([]proto.Message, error)) (file *claimsv1.File, revision int64, err error) {
	leave, err := s.enter()
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, 0, err
	}
	revision = eventstore.NoStream
	for range decideAttempts {
		file, revision, err = s.changeFileOnce(ctx, caller, action, id, revision, decide)
		if err == nil || !eventstore.IsConflict(err) {
			return file, revision, err
		}
	}
	return nil, 0, busy(err)
}

// changeFileOnce is one attempt; of a conflict it returns the revision that
// the stream is at.
func (s *Service) changeFileOnce(ctx context.Context, caller identity.Principal, action, id string, atLeast int64, decide func(*FileRecord) ([]proto.Message, error)) (file *claimsv1.File, revision int64, err error) {
	held, err := s.holdFileAt(ctx, id, atLeast)
	if err != nil {
		return nil, 0, err
	}
	defer s.files.release(held)
	f := held.value
	if err := s.authorizeFile(ctx, action, id, f); err != nil {
		return nil, 0, err
	}
	events, err := decide(f)
	if err != nil {
		return nil, 0, err
	}
	if len(events) == 0 {
		return f.View(), f.Revision, nil
	}
	done, err := s.store.Append(ctx, eventstore.Commit{
		Log:        logName,
		RoutingKey: id,
		// A file's events are decided at one revision each: that is their identity.
		RequestID: fmt.Sprintf("%s/%s/%d", id, action, f.Revision+1),
		Causation: id,
		Actor:     caller.Subject,
		Writes:    []eventstore.Write{{Stream: fileStream(id), Expected: f.Revision, Events: events}},
	})
	if conflict, ok := asMoved(err, fileStream(id), f.Revision+1); ok {
		return nil, conflict.Actual, conflict
	}
	if err != nil {
		return nil, 0, err
	}
	first := f.Revision + 1
	for i, e := range events {
		f.Evolve(eventstore.Recorded{Position: done.Position, Stream: fileStream(id), Revision: uint64(first) + uint64(i), Event: e, RecordedTime: done.RecordedTime})
	}
	return f.View(), f.Revision, nil
}

// authorizeFile asks the policy set; a file that isn't there is answered as
// one that is somebody else's.
func (s *Service) authorizeFile(ctx context.Context, action, id string, f *FileRecord) error {
	if !f.Exists() {
		return notFound("file")
	}
	return s.auth.Authorize(ctx, action, identity.Resource{Type: identity.File, ID: id, Org: f.File.GetSubmitterOrg()})
}

// RecordOutcomes implements claimsv1connect.FileServiceHandler.
func (s *Service) RecordOutcomes(ctx context.Context, req *claimsv1.RecordOutcomesRequest) (*claimsv1.RecordOutcomesResponse, error) {
	if n := len(req.GetOutcomes()); n == 0 || n > maxSubmissions {
		return nil, problem.Invalidf("files.outcome.count", "outcomes", "a call records 1 to %d outcomes", maxSubmissions)
	}
	file, _, err := s.changeFile(ctx, "RecordOutcomes", req.GetFileId(), func(f *FileRecord) ([]proto.Message, error) { return f.Record(req.GetOutcomes()) })
	if err != nil {
		return nil, err
	}
	return &claimsv1.RecordOutcomesResponse{OutcomeCount: file.GetOutcomeCount()}, nil
}

// CompleteFile implements claimsv1connect.FileServiceHandler.
func (s *Service) CompleteFile(ctx context.Context, req *claimsv1.CompleteFileRequest) (*claimsv1.CompleteFileResponse, error) {
	for _, id := range req.GetRemittanceIds() {
		if !isID("rem", id) {
			return nil, problem.Invalidf("files.complete.remittance", "remittance_ids", "a remittance's id is rem_ and 26 letters")
		}
	}
	file, _, err := s.changeFile(ctx, "CompleteFile", req.GetFileId(), func(f *FileRecord) ([]proto.Message, error) { return f.Complete(req.GetRemittanceIds()) })
	if err != nil {
		return nil, err
	}
	return &claimsv1.CompleteFileResponse{File: file}, nil
}

// GetFile implements claimsv1connect.FileServiceHandler.
func (s *Service) GetFile(ctx context.Context, req *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error) {
	held, err := s.holdFile(ctx, req.GetFileId())
	if err != nil {
		return nil, err
	}
	defer s.files.release(held)
	if err := hide("file", s.authorizeFile(ctx, "GetFile", req.GetFileId(), held.value)); err != nil {
		return nil, err
	}
	out := &claimsv1.GetFileResponse{File: held.value.View()}
	if req.GetIncludeOutcomes() {
		out.Outcomes = held.value.Ordered()
	}
	return out, nil
}
