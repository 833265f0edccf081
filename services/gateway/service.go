// Package gateway is the edge: X12 files in, acknowledgements and remittance
// advices out. It owns no stream and decides nothing; it translates between
// X12 and the claims service.
//
// Promises: a file is durable on the ledger before SubmitFile answers. A
// chunk's outcomes are recorded all or none, and only when every claim of it
// was answered for good: a retry of the same chunk repeats the same request
// ids. No health data is written in clear outside this process's memory, nor
// to a log or an error.
package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/problem"
)

// Config of the gateway. Zero fields take the defaults.
type Config struct {
	// MaxFileBytes bounds a submitted file. Default 256 MiB, the claims service's own bound.
	MaxFileBytes int64 `json:"maxFileBytes,omitempty"`
	// SpoolDir is where files are spooled, enciphered and unlinked, while they
	// are worked on. Default is the system's temporary directory.
	SpoolDir string `json:"spoolDir,omitempty"`
	// CachedFiles and CachedBytes bound the spooled files kept between chunks.
	// Defaults 8 and 1 GiB. Files in use may exceed them.
	CachedFiles int   `json:"cachedFiles,omitempty"`
	CachedBytes int64 `json:"cachedBytes,omitempty"`
	// SegmentBytes is the longest X12 segment. Default 64 KiB.
	SegmentBytes int `json:"segmentBytes,omitempty"`
	// Problems is how many problems are kept a file. Default 1000.
	Problems int `json:"problems,omitempty"`
	// Payers are what an 835 says of each payer, by payer id; DefaultPayer serves the others.
	Payers       map[string]x12.PayerProfile `json:"payers,omitempty"`
	DefaultPayer x12.PayerProfile            `json:"defaultPayer,omitempty"`
}

func (c Config) withDefaults() Config {
	if c.MaxFileBytes <= 0 {
		c.MaxFileBytes = 256 << 20
	}
	if c.CachedFiles <= 0 {
		c.CachedFiles = 8
	}
	if c.CachedBytes <= 0 {
		c.CachedBytes = 1 << 30
	}
	return c
}

// Deps are the services behind the gateway. Their clients must carry the
// caller's bearer token where the caller is a user: the claims service takes
// the organisation from it.
type Deps struct {
	Claims      claimsv1connect.ClaimsServiceClient
	Files       claimsv1connect.FileServiceClient
	Remittances claimsv1connect.RemittanceServiceClient
	// Policies takes the changes of enrolment files.
	Policies policiesv1connect.PoliciesServiceClient
}

// Service implements gatewayv1connect.GatewayServiceHandler.
type Service struct {
	cfg   Config
	deps  Deps
	files *shelf
}

// New makes the gateway. Close it when no request is running any more.
func New(cfg Config, deps Deps) *Service {
	cfg = cfg.withDefaults()
	return &Service{cfg: cfg, deps: deps, files: newShelf(cfg.CachedFiles, cfg.CachedBytes)}
}

// Close releases the spooled files.
func (s *Service) Close() { s.files.close() }

const (
	// sendBytes is the size of the pieces content travels in; half of what the messages allow.
	sendBytes = 256 << 10
	// fetchTimeout bounds bringing a file back for all who wait for it.
	fetchTimeout = 2 * time.Minute
)

func unavailable(rule, msg string, cause error) *problem.Error {
	return problem.New(problem.Unavailable, problem.Problem{RuleID: rule, Message: msg, Fix: "retry later; the operation is safe to repeat"}).Because(cause)
}

func (s *Service) limits() x12.Limits {
	return x12.Limits{SegmentBytes: s.cfg.SegmentBytes, Problems: s.cfg.Problems}
}

// SubmitFile implements gatewayv1connect.GatewayServiceHandler. A file whose
// every transaction set is rejected is recorded as refused, with its problems.
func (s *Service) SubmitFile(ctx context.Context, stream *connect.ClientStream[gatewayv1.SubmitFileRequest]) (*gatewayv1.SubmitFileResponse, error) {
	sp, err := newSpool(s.cfg.SpoolDir, s.cfg.MaxFileBytes)
	if err != nil {
		return nil, err
	}
	kept := false
	defer func() {
		if !kept {
			sp.close()
		}
	}()
	requestID := ""
	for first := true; stream.Receive(); first = false {
		switch part := stream.Msg().GetPart().(type) {
		case *gatewayv1.SubmitFileRequest_Options:
			if !first {
				return nil, problem.Invalidf("gateway.submit.options", "options", "options come once, before the data")
			}
			requestID = part.Options.GetRequestId()
		case *gatewayv1.SubmitFileRequest_Data:
			if _, err := sp.Write(part.Data); err != nil {
				return nil, err
			}
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if sp.size == 0 {
		return nil, emptyFile()
	}
	parsed, err := x12.ParseFile(sp.reader(), s.limits())
	if err != nil {
		return nil, err
	}
	found := problemProtos(parsed.Problems())
	if requestID == "" {
		requestID = hex.EncodeToString(sp.digest())
	}
	header := &claimsv1.FileHeader{RequestId: requestID, Sha256: sp.digest(), SizeBytes: uint64(sp.size),
		ClaimCount: uint32(parsed.ClaimCount), Kind: parsed.Kind(), InterchangeControlNumber: parsed.Control()}
	if parsed.Refused() {
		header.Problems = found[:min(len(found), 1000)]
	}
	res, err := s.register(ctx, header, sp)
	if err != nil {
		return nil, err
	}
	if !parsed.Refused() {
		// Its first chunk is asked for at once: it needn't be fetched and read again.
		kept = true
		s.files.put(res.GetFile().GetFileId(), &openFile{spool: sp, parsed: parsed})
	}
	return &gatewayv1.SubmitFileResponse{File: res.GetFile(), Duplicate: res.GetDuplicate(), Problems: found, Token: res.GetToken(), Promise: res.GetPromise()}, nil
}

// register sends header and content to the claims service.
func (s *Service) register(ctx context.Context, header *claimsv1.FileHeader, sp *spool) (*claimsv1.RegisterFileResponse, error) {
	up, err := s.deps.Files.RegisterFile(ctx)
	if err != nil {
		return nil, err
	}
	err = up.Send(&claimsv1.RegisterFileRequest{Part: &claimsv1.RegisterFileRequest_Header{Header: header}})
	buf := make([]byte, sendBytes)
	for off := int64(0); err == nil && off < sp.size; {
		var n int
		n, err = sp.ReadAt(buf[:min(sendBytes, sp.size-off)], off)
		if err == nil || errors.Is(err, io.EOF) {
			off += int64(n)
			err = up.Send(&claimsv1.RegisterFileRequest{Part: &claimsv1.RegisterFileRequest_Data{Data: buf[:n]}})
		}
	}
	// The other side may answer before it has taken everything: Send then
	// reports io.EOF and the answer is the error or the result.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return up.CloseAndReceive()
}

// ValidateFile implements gatewayv1connect.GatewayServiceHandler: the same
// parsing as SubmitFile, straight from the stream, recording nothing.
func (s *Service) ValidateFile(_ context.Context, stream *connect.ClientStream[gatewayv1.ValidateFileRequest]) (*gatewayv1.ValidateFileResponse, error) {
	src := &streamReader{stream: stream, left: s.cfg.MaxFileBytes}
	parsed, err := x12.ParseFile(src, s.limits())
	if err != nil {
		return nil, err
	}
	return &gatewayv1.ValidateFileResponse{Problems: problemProtos(parsed.Problems()), ClaimCount: uint32(parsed.ClaimCount)}, nil
}

// streamReader reads the bytes of a ValidateFile stream.
type streamReader struct {
	stream *connect.ClientStream[gatewayv1.ValidateFileRequest]
	rest   []byte
	left   int64
}

func (r *streamReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if !r.stream.Receive() {
			if err := r.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		r.rest = r.stream.Msg().GetData()
		if r.left -= int64(len(r.rest)); r.left < 0 {
			return 0, problem.Invalidf("gateway.file.too-large", "data", "the file is larger than this gateway accepts")
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// open returns the content of a registered file, parsed.
func (s *Service) open(ctx context.Context, fileID string) (*openFile, func(), error) {
	return s.files.take(ctx, fileID, func(ctx context.Context) (*openFile, error) {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		down, err := s.deps.Files.ReadFile(ctx, &claimsv1.ReadFileRequest{FileId: fileID})
		if err != nil {
			return nil, err
		}
		defer func() { _ = down.Close() }()
		sp, err := newSpool(s.cfg.SpoolDir, s.cfg.MaxFileBytes)
		if err != nil {
			return nil, err
		}
		for down.Receive() {
			if _, err := sp.Write(down.Msg().GetData()); err != nil {
				sp.close()
				return nil, err
			}
		}
		if err := down.Err(); err != nil {
			sp.close()
			return nil, err
		}
		parsed, err := x12.ParseFile(sp.reader(), s.limits())
		if err != nil {
			sp.close()
			return nil, err
		}
		return &openFile{spool: sp, parsed: parsed}, nil
	})
}

func problemProtos(list []problem.Problem) []*problemv1.Problem {
	out := make([]*problemv1.Problem, len(list))
	for i, p := range list {
		out[i] = &problemv1.Problem{RuleId: p.RuleID, FieldPath: p.FieldPath, X12Path: p.X12Path, Code: p.Code, Message: p.Message, Fix: p.Fix, Kind: string(problem.Invalid)}
	}
	return out
}

func problemsOf(list []*problemv1.Problem) []problem.Problem {
	out := make([]problem.Problem, len(list))
	for i, p := range list {
		out[i] = problem.Problem{RuleID: p.GetRuleId(), FieldPath: p.GetFieldPath(), X12Path: p.GetX12Path(), Code: p.GetCode(), Message: p.GetMessage(), Fix: p.GetFix()}
	}
	return out
}

func emptyFile() error {
	return problem.New(problem.Invalid, problem.Problem{RuleID: "gateway.submit.empty", FieldPath: "data",
		Message: "the file is empty", Fix: "send a complete X12 interchange, from ISA to IEA; look whether the export that made the file went wrong"})
}
