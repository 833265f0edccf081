package claims

import (
	"bytes"
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// RegisterFile implements claimsv1connect.FileServiceHandler. An upload that
// breaks off leaves nothing or some sealed parts; sending the file again
// completes it. The same bytes of the same organisation are one file, however
// often they come.
func (s *Service) RegisterFile(ctx context.Context, stream *connect.ClientStream[claimsv1.RegisterFileRequest]) (*claimsv1.RegisterFileResponse, error) {
	return s.registerFile(ctx, func() (*claimsv1.RegisterFileRequest, error) {
		if stream.Receive() {
			return stream.Msg(), nil
		}
		if err := stream.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	})
}

// registerFile is RegisterFile over any source of its messages; next answers
// io.EOF after the last.
func (s *Service) registerFile(ctx context.Context, next func() (*claimsv1.RegisterFileRequest, error)) (*claimsv1.RegisterFileResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "RegisterFile", identity.Resource{Type: identity.File, Org: caller.Org}); err != nil {
		return nil, err
	}
	select {
	case s.uploads <- struct{}{}:
		defer func() { <-s.uploads }()
	default:
		return nil, problem.New(problem.Exhausted, problem.Problem{
			RuleID: "files.uploads.many", Message: "too many files are being received just now", Fix: "send the file again in a moment",
		})
	}
	first, err := next()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	header := first.GetHeader()
	if err := checkHeader(header, s.config.MaxFileBytes); err != nil {
		return nil, err
	}
	id := s.index.File(caller.Org, header.GetSha256())
	record, err := s.fileNow(ctx, id, eventstore.NoStream)
	if err != nil {
		return nil, err
	}
	received := s.fileReceived(caller, header, id)
	if len(record.Register(received)) == 0 {
		return duplicateOf(record), drain(next, s.config.MaxFileBytes)
	}
	if len(header.GetProblems()) == 0 {
		if received.ContentParts, err = s.receiveContent(ctx, caller, header, id, next); err != nil {
			return nil, err
		}
	} else if err := drain(next, s.config.MaxFileBytes); err != nil {
		return nil, err
	}
	return s.recordFile(ctx, caller, record, received)
}

func checkHeader(h *claimsv1.FileHeader, limit int64) error {
	switch {
	case h == nil:
		return problem.Invalidf("files.header.missing", "header", "the first message of an upload is its header")
	case len(h.GetSha256()) != 32:
		return problem.Invalidf("files.header.sha256", "header.sha256", "the SHA-256 is 32 bytes")
	case h.GetRequestId() == "":
		return problem.Invalidf("files.header.request-id", "header.request_id", "the header has no request id")
	case h.GetSizeBytes() > uint64(limit):
		return problem.Invalidf("files.size.max", "header.size_bytes", "the file is larger than this installation takes (%d bytes); split it", limit)
	case len(h.GetProblems()) == 0 && h.GetClaimCount() == 0:
		return problem.Invalidf("files.header.claims", "header.claim_count", "a file that is not refused has at least one claim")
	}
	return nil
}

func (s *Service) fileReceived(caller identity.Principal, h *claimsv1.FileHeader, id string) *eventsv1.FileReceived {
	f := &claimsv1.File{
		FileId:                   id,
		SubmitterOrg:             caller.Org,
		Kind:                     h.GetKind(),
		SizeBytes:                h.GetSizeBytes(),
		Sha256:                   h.GetSha256(),
		State:                    claimsv1.FileState_FILE_STATE_PROCESSING,
		ClaimCount:               h.GetClaimCount(),
		ReceivedTime:             timestamppb.New(s.now()),
		InterchangeControlNumber: h.GetInterchangeControlNumber(),
	}
	if len(h.GetProblems()) > 0 {
		f.State, f.Problems = claimsv1.FileState_FILE_STATE_REFUSED, bounded(h.GetProblems(), 1000)
	}
	return &eventsv1.FileReceived{File: f, RequestId: s.index.ID("req", caller.Org, h.GetRequestId())}
}

// receiveContent takes the content, checks it and records it sealed; it
// returns the number of parts.
func (s *Service) receiveContent(ctx context.Context, caller identity.Principal, h *claimsv1.FileHeader, id string, next func() (*claimsv1.RegisterFileRequest, error)) (uint32, error) {
	sp, err := s.newSpool(id)
	if err != nil {
		return 0, err
	}
	defer sp.close()
	for {
		m, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if m.GetHeader() != nil {
			return 0, problem.Invalidf("files.header.twice", "header", "an upload has one header, and it comes first")
		}
		if err := sp.write(ctx, m.GetData()); err != nil {
			return 0, err
		}
	}
	if err := sp.finish(ctx); err != nil {
		return 0, err
	}
	if !bytes.Equal(sp.digest[:], h.GetSha256()) || uint64(sp.size) != h.GetSizeBytes() {
		return 0, problem.New(problem.Invalid, problem.Problem{
			RuleID: "files.content.differs", FieldPath: "header.sha256", Message: "the content received is not what the header says", Fix: "send the file again; nothing was recorded",
		})
	}
	return sp.parts, sp.record(ctx, caller.Subject)
}

// recordFile appends the file's receipt; where another upload of the same
// bytes was faster, its answer is given.
func (s *Service) recordFile(ctx context.Context, caller identity.Principal, record *FileRecord, received *eventsv1.FileReceived) (*claimsv1.RegisterFileResponse, error) {
	id := received.GetFile().GetFileId()
	for range decideAttempts {
		events := record.Register(received)
		if len(events) == 0 {
			return duplicateOf(record), nil
		}
		done, err := s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: id, Actor: caller.Subject,
			RequestID: id + "/received/" + itoa(uint32(record.Revision+1)),
			Writes:    []eventstore.Write{{Stream: fileStream(id), Expected: record.Revision, Events: events}},
		})
		moved, ok := asMoved(err, fileStream(id), record.Revision+1)
		if ok {
			if record, err = s.fileNow(ctx, id, moved.Actual); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		file := fileOfReceived(received, eventstore.Recorded{Position: done.Position})
		return &claimsv1.RegisterFileResponse{File: file, Token: done.Token, Promise: done.Promise}, nil
	}
	return nil, busy(nil)
}

// fileNow is a file's record of its own, which the caller may keep: uploads
// take long and must not hold the shared one.
func (s *Service) fileNow(ctx context.Context, id string, atLeast int64) (*FileRecord, error) {
	events, err := readAtLeast(ctx, s.store, id, fileStream(id), eventstore.NoStream, atLeast)
	if err != nil {
		return nil, err
	}
	f := NewFileRecord()
	for _, r := range events {
		f.Evolve(r)
	}
	return f, nil
}

func duplicateOf(f *FileRecord) *claimsv1.RegisterFileResponse {
	p := f.File.GetPosition()
	token := eventstore.Position{Log: p.GetLog(), Shard: p.GetShard(), Index: p.GetIndex()}.Token()
	return &claimsv1.RegisterFileResponse{File: f.View(), Duplicate: true, Token: token}
}

// drain takes the rest of an upload that isn't needed, so that the sender,
// who is still sending, gets the answer rather than a broken stream.
func drain(next func() (*claimsv1.RegisterFileRequest, error), limit int64) error {
	for size := int64(0); size <= limit; {
		m, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		size += int64(len(m.GetData())) + 1
	}
	return problem.Invalidf("files.size.max", "data", "the file is larger than this installation takes")
}

// ReadFile implements claimsv1connect.FileServiceHandler.
func (s *Service) ReadFile(ctx context.Context, req *claimsv1.ReadFileRequest, stream *connect.ServerStream[claimsv1.ReadFileResponse]) error {
	return s.readFile(ctx, req.GetFileId(), func(b []byte) error { return stream.Send(&claimsv1.ReadFileResponse{Data: b}) })
}

func (s *Service) readFile(ctx context.Context, id string, send func([]byte) error) error {
	if !isID("fil", id) {
		return notFound("file")
	}
	record, err := s.fileNow(ctx, id, eventstore.NoStream)
	if err != nil {
		return err
	}
	if err := hide("file", s.authorizeFile(ctx, "ReadFile", id, record)); err != nil {
		return err
	}
	if err := record.open(); err != nil {
		return err
	}
	return s.readContent(ctx, record, send)
}
