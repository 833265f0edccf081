package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/gateway"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/gateway/x12/x12test"
	"github.com/probity-health/probity/services/problem"
)

const fileID = "fil_aaaaaaaaaaaaaaaaaaaaaaaaaa"

// claimsService is a claims service in memory, with faults by name.
type claimsService struct {
	claimsv1connect.UnimplementedClaimsServiceHandler
	claimsv1connect.UnimplementedFileServiceHandler
	claimsv1connect.UnimplementedRemittanceServiceHandler

	// Faults: each ordinal listed fails so.
	retryable, refuse, pend map[uint32]bool
	// readSlowly holds every ReadFile until it is closed.
	readSlowly chan struct{}
	// canceled: the file is closed after a cancel.
	canceled bool

	mu       sync.Mutex
	header   *claimsv1.FileHeader
	content  []byte
	outcomes map[uint32]*claimsv1.ClaimOutcome
	requests map[string]*claimsv1.Claim
	reads    int
	rem      *claimsv1.GetRemittanceResponse
}

var received = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func (c *claimsService) file() *claimsv1.File {
	state := claimsv1.FileState_FILE_STATE_PROCESSING
	if len(c.header.GetProblems()) > 0 {
		state = claimsv1.FileState_FILE_STATE_REFUSED
	}
	outcomes := uint32(len(c.outcomes))
	if c.canceled {
		state, outcomes = claimsv1.FileState_FILE_STATE_CANCELED, c.header.GetClaimCount()
	}
	return &claimsv1.File{FileId: fileID, SubmitterOrg: "prov-lakeside", Kind: c.header.GetKind(), ClaimCount: c.header.GetClaimCount(), OutcomeCount: outcomes,
		State: state, Problems: c.header.GetProblems(), Sha256: c.header.GetSha256(), SizeBytes: c.header.GetSizeBytes(), ReceivedTime: timestamppb.New(received)}
}

func (c *claimsService) RegisterFile(_ context.Context, stream *connect.ClientStream[claimsv1.RegisterFileRequest]) (*claimsv1.RegisterFileResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	duplicate := c.header != nil
	c.content = nil
	for stream.Receive() {
		if h := stream.Msg().GetHeader(); h != nil {
			c.header = proto.CloneOf(h)
		}
		c.content = append(c.content, stream.Msg().GetData()...)
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(c.content); !bytes.Equal(sum[:], c.header.GetSha256()) || uint64(len(c.content)) != c.header.GetSizeBytes() {
		return nil, errors.New("the content is not what the header says")
	}
	return &claimsv1.RegisterFileResponse{File: c.file(), Duplicate: duplicate, Token: "token", Promise: []byte("promise")}, nil
}

func (c *claimsService) ReadFile(_ context.Context, _ *claimsv1.ReadFileRequest, stream *connect.ServerStream[claimsv1.ReadFileResponse]) error {
	if c.readSlowly != nil {
		<-c.readSlowly
	}
	c.mu.Lock()
	c.reads++
	rest := c.content
	c.mu.Unlock()
	for len(rest) > 0 {
		n := min(len(rest), 1000)
		if err := stream.Send(&claimsv1.ReadFileResponse{Data: rest[:n]}); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func (c *claimsService) GetFile(_ context.Context, req *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	res := &claimsv1.GetFileResponse{File: c.file()}
	if req.GetIncludeOutcomes() {
		for _, o := range c.outcomes {
			res.Outcomes = append(res.Outcomes, o)
		}
	}
	return res, nil
}

func (c *claimsService) ListFileOutcomes(_ context.Context, req *claimsv1.ListFileOutcomesRequest) (*claimsv1.ListFileOutcomesResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	res := &claimsv1.ListFileOutcomesResponse{}
	from, _ := strconv.Atoi(req.GetPageToken())
	// Pages of three, whatever was asked for: the list must be walked to its end.
	for n := uint32(from); n < c.header.GetClaimCount(); n++ {
		if len(res.Outcomes) == 3 {
			res.NextPageToken = strconv.Itoa(int(n))
			break
		}
		o := c.outcomes[n]
		if o == nil && c.canceled {
			o = &claimsv1.ClaimOutcome{Ordinal: n, Status: claimsv1.ClaimStatus_CLAIM_STATUS_NOT_PROCESSED}
		}
		if o != nil {
			res.Outcomes = append(res.Outcomes, o)
		}
	}
	return res, nil
}

func (c *claimsService) SubmitClaims(_ context.Context, req *claimsv1.SubmitClaimsRequest) (*claimsv1.SubmitClaimsResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	res := &claimsv1.SubmitClaimsResponse{}
	for _, r := range req.GetClaims() {
		if have := c.requests[r.GetRequestId()]; have != nil && !proto.Equal(have, r.GetClaim()) {
			return nil, errors.New("another claim under the same request id")
		}
		one := &claimsv1.SubmitClaimResponse{}
		switch n := r.GetFileOrdinal(); {
		case c.retryable[n]:
			one.Problems = []*problemv1.Problem{{RuleId: "ledger.busy", Kind: string(problem.Unavailable), Retryable: true}}
		case c.refuse[n]:
			one.Problems = []*problemv1.Problem{{RuleId: "claims.payer.unknown", Kind: string(problem.Invalid), Code: "A7"}}
		default:
			c.requests[r.GetRequestId()] = r.GetClaim()
			one.Claim = &claimsv1.ClaimSummary{ClaimId: fmt.Sprintf("clm_%026d", n), Status: claimsv1.ClaimStatus_CLAIM_STATUS_PAID}
			if c.pend[n] {
				one.Claim.Status = claimsv1.ClaimStatus_CLAIM_STATUS_PENDED
			}
		}
		res.Results = append(res.Results, one)
	}
	return res, nil
}

func (c *claimsService) RecordOutcomes(_ context.Context, req *claimsv1.RecordOutcomesRequest) (*claimsv1.RecordOutcomesResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range req.GetOutcomes() {
		if c.outcomes[o.GetOrdinal()] == nil {
			c.outcomes[o.GetOrdinal()] = o
		}
	}
	return &claimsv1.RecordOutcomesResponse{OutcomeCount: uint32(len(c.outcomes))}, nil
}

func (c *claimsService) GetRemittance(context.Context, *claimsv1.GetRemittanceRequest) (*claimsv1.GetRemittanceResponse, error) {
	return c.rem, nil
}

// given starts a gateway before a claims service.
func given(t *testing.T, cfg gateway.Config) (gatewayv1connect.GatewayServiceClient, *claimsService) {
	t.Helper()
	claims := &claimsService{outcomes: map[uint32]*claimsv1.ClaimOutcome{}, requests: map[string]*claimsv1.Claim{}}
	return over(t, cfg, claims), claims
}

// over is a gateway in front of a claims service.
func over(t *testing.T, cfg gateway.Config, claims *claimsService) gatewayv1connect.GatewayServiceClient {
	t.Helper()
	serve := func(mount func(*http.ServeMux)) *httptest.Server {
		mux := http.NewServeMux()
		mount(mux)
		srv := httptest.NewUnstartedServer(mux)
		srv.EnableHTTP2 = true
		srv.StartTLS()
		t.Cleanup(srv.Close)
		return srv
	}
	back := serve(func(mux *http.ServeMux) {
		mux.Handle(claimsv1connect.NewClaimsServiceHandler(claims))
		mux.Handle(claimsv1connect.NewFileServiceHandler(claims))
		mux.Handle(claimsv1connect.NewRemittanceServiceHandler(claims))
	})
	cfg.SpoolDir = t.TempDir()
	gw := gateway.New(cfg, gateway.Deps{
		Claims:      claimsv1connect.NewClaimsServiceClient(back.Client(), back.URL),
		Files:       claimsv1connect.NewFileServiceClient(back.Client(), back.URL),
		Remittances: claimsv1connect.NewRemittanceServiceClient(back.Client(), back.URL),
	})
	t.Cleanup(gw.Close)
	front := serve(func(mux *http.ServeMux) {
		mux.Handle(gatewayv1connect.NewGatewayServiceHandler(gw, connect.WithInterceptors(mapProblems{})))
	})
	return gatewayv1connect.NewGatewayServiceClient(front.Client(), front.URL)
}

// mapProblems stands in for the server's error mapping: retryable is Unavailable, the rest FailedPrecondition.
type mapProblems struct{}

func (mapProblems) code(err error) error {
	var e *problem.Error
	if !errors.As(err, &e) {
		return err
	}
	if e.Retryable() {
		return connect.NewError(connect.CodeUnavailable, e)
	}
	return connect.NewError(connect.CodeFailedPrecondition, e)
}

func (m mapProblems) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		return res, m.code(err)
	}
}
func (mapProblems) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
func (m mapProblems) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error { return m.code(next(ctx, conn)) }
}

func submit(t *testing.T, gw gatewayv1connect.GatewayServiceClient, file []byte) (*gatewayv1.SubmitFileResponse, error) {
	t.Helper()
	up, err := gw.SubmitFile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for rest := file; len(rest) > 0; {
		n := min(len(rest), 1000)
		if err := up.Send(&gatewayv1.SubmitFileRequest{Part: &gatewayv1.SubmitFileRequest_Data{Data: rest[:n]}}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	return up.CloseAndReceive()
}

func document(t *testing.T, gw gatewayv1connect.GatewayServiceClient, kind, id string) (string, error) {
	t.Helper()
	down, err := gw.GetDocument(t.Context(), &gatewayv1.GetDocumentRequest{Kind: kind, Id: id})
	if err != nil {
		return "", err
	}
	defer down.Close()
	var out []byte
	for down.Receive() {
		out = append(out, down.Msg().GetData()...)
	}
	return string(out), down.Err()
}

// threeOfFour is a file of four claims, the second of which is in error.
func threeOfFour() []byte {
	return x12test.Professional(4, func(i int, s []string) []string {
		if i == 1 {
			s[9] = "HI*ABK:J209*XX:E119"
		}
		return s
	})
}

// From a file to its answers: every claim gets an outcome, the provider a 999 and a 277CA.
func TestAFileIsTakenAdjudicatedAndAcknowledged(t *testing.T) {
	gw, claims := given(t, gateway.Config{})
	claims.refuse, claims.pend = map[uint32]bool{2: true}, map[uint32]bool{3: true}

	res, err := submit(t, gw, threeOfFour())
	if err != nil {
		t.Fatal(err)
	}
	if res.GetFile().GetClaimCount() != 4 || res.GetDuplicate() || res.GetToken() != "token" || len(res.GetProblems()) == 0 {
		t.Fatalf("%v", res)
	}
	if _, err := document(t, gw, "277CA", fileID); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Fatalf("a 277CA before the claims are decided: %v", err)
	}
	done, err := gw.AdjudicateChunk(t.Context(), &gatewayv1.AdjudicateChunkRequest{FileId: fileID, FirstOrdinal: 0, Count: 500})
	if err != nil {
		t.Fatal(err)
	}
	if done.GetOutcomeCount() != 4 || done.GetPaid() != 1 || done.GetPended() != 1 || done.GetRejected() != 2 {
		t.Fatalf("%v", done)
	}
	if len(claims.requests) != 2 || claims.requests[fileID+"/0"] == nil || claims.requests[fileID+"/3"] == nil {
		t.Fatalf("submitted under %d request ids", len(claims.requests))
	}
	ack, err := document(t, gw, "999", fileID)
	if err != nil || !strings.Contains(ack, "IK5*E*5~\nAK9*E*1*1*1~") || !strings.Contains(ack, "*ZZ*KEYSTONE       *ZZ*LAKESIDE       *261121*1200*") {
		t.Fatalf("%v %s", err, ack)
	}
	claimAck, err := document(t, gw, "277CA", fileID)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"STC*A2:20*", "REF*1K*clm_00000000000000000000000003~", "STC*A7:255*", "STC*A7:21*", "QTY*90*2~", "QTY*AA*2~"} {
		if !strings.Contains(claimAck, want) {
			t.Errorf("no %s in\n%s", want, claimAck)
		}
	}
	again, _ := document(t, gw, "277CA", fileID)
	if again != claimAck {
		t.Error("the same document came in other bytes")
	}
	if claims.reads != 0 {
		t.Errorf("the gateway that took the file fetched it %d times", claims.reads)
	}
	elsewhere := over(t, gateway.Config{}, claims)
	for range 2 {
		if again, err := document(t, elsewhere, "277CA", fileID); err != nil || again != claimAck {
			t.Errorf("another gateway tells otherwise: %v", err)
		}
	}
	if claims.reads != 1 {
		t.Errorf("another gateway fetched the file %d times", claims.reads)
	}
}

// A chunk of a canceled file is left alone, but for one that was begun; the
// provider reads in the 277CA which claims nobody looked at.
func TestACanceledFilesChunksAreLeftAlone(t *testing.T) {
	gw, claims := given(t, gateway.Config{})
	if _, err := submit(t, gw, x12test.Professional(4, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := gw.AdjudicateChunk(t.Context(), &gatewayv1.AdjudicateChunkRequest{FileId: fileID, Count: 1}); err != nil {
		t.Fatal(err)
	}
	claims.canceled = true
	left, err := gw.AdjudicateChunk(t.Context(), &gatewayv1.AdjudicateChunkRequest{FileId: fileID, FirstOrdinal: 1, Count: 2})
	if err != nil || !left.GetCanceled() || len(claims.requests) != 1 {
		t.Fatalf("%v %v, %d submitted", left, err, len(claims.requests))
	}
	done, err := gw.AdjudicateChunk(t.Context(), &gatewayv1.AdjudicateChunkRequest{FileId: fileID, FirstOrdinal: 1, Count: 2, Finish: true})
	if err != nil || done.GetCanceled() || done.GetPaid() != 2 || len(claims.requests) != 3 {
		t.Fatalf("%v %v, %d submitted", done, err, len(claims.requests))
	}
	ack, err := document(t, gw, "277CA", fileID)
	if err != nil || strings.Count(ack, "STC*A3:0*") != 1 || strings.Count(ack, "REF*1K*clm_") != 3 {
		t.Fatalf("%v %s", err, ack)
	}
}

// A passing failure of one claim records nothing; the repeat finishes.
func TestAChunkIsNeverHalfRecorded(t *testing.T) {
	gw, claims := given(t, gateway.Config{})
	if _, err := submit(t, gw, threeOfFour()); err != nil {
		t.Fatal(err)
	}
	claims.retryable = map[uint32]bool{2: true}
	chunk := &gatewayv1.AdjudicateChunkRequest{FileId: fileID, FirstOrdinal: 0, Count: 4}
	if _, err := gw.AdjudicateChunk(t.Context(), chunk); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Fatalf("%v", err)
	}
	if len(claims.outcomes) != 0 {
		t.Fatalf("%d outcomes of a failed chunk", len(claims.outcomes))
	}
	claims.retryable = nil
	done, err := gw.AdjudicateChunk(t.Context(), chunk)
	if err != nil || done.GetPaid() != 3 || done.GetRejected() != 1 || len(claims.outcomes) != 4 {
		t.Fatalf("%v %v", done, err)
	}
}

func TestChunksCoverAFileOnceInAnyOrder(t *testing.T) {
	const n = 333
	gw, claims := given(t, gateway.Config{CachedFiles: 1})
	claims.readSlowly = make(chan struct{})
	if _, err := submit(t, gw, x12test.Professional(n, nil)); err != nil {
		t.Fatal(err)
	}
	gw = over(t, gateway.Config{CachedFiles: 1}, claims) // not the one that took it
	var wg sync.WaitGroup
	for first := n - n%50; first >= 0; first -= 50 {
		wg.Go(func() {
			if _, err := gw.AdjudicateChunk(t.Context(), &gatewayv1.AdjudicateChunkRequest{FileId: fileID, FirstOrdinal: uint32(first), Count: 50}); err != nil {
				t.Error(err)
			}
		})
	}
	close(claims.readSlowly)
	wg.Wait()
	if len(claims.outcomes) != n || len(claims.requests) != n || claims.reads != 1 {
		t.Fatalf("%d outcomes, %d claims, %d fetches", len(claims.outcomes), len(claims.requests), claims.reads)
	}
	for i := range n {
		if c := claims.requests[fmt.Sprintf("%s/%d", fileID, i)]; c.GetPatientControlNumber() != fmt.Sprintf("ACCT%06d", i) {
			t.Fatalf("ordinal %d is claim %s", i, c.GetPatientControlNumber())
		}
	}
	_, err := gw.AdjudicateChunk(t.Context(), &gatewayv1.AdjudicateChunkRequest{FileId: fileID, FirstOrdinal: n, Count: 1})
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Fatalf("a chunk beyond the file: %v", err)
	}
}

// A file that is refused whole is recorded with its reasons, and acknowledged from them.
func TestARefusedFileIsRecordedAndAcknowledged(t *testing.T) {
	gw, _ := given(t, gateway.Config{})
	bad := bytes.Replace(x12test.Professional(2, nil), []byte("HL*2*1*22"), []byte("HL*2*7*22"), 1)
	res, err := submit(t, gw, bad)
	if err != nil {
		t.Fatal(err)
	}
	if res.GetFile().GetState() != claimsv1.FileState_FILE_STATE_REFUSED || res.GetFile().GetProblems()[0].GetRuleId() != "x12.hl.parent" {
		t.Fatalf("%v", res.GetFile())
	}
	if _, err := gw.AdjudicateChunk(t.Context(), &gatewayv1.AdjudicateChunkRequest{FileId: fileID, Count: 1}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Fatalf("adjudicated a refused file: %v", err)
	}
	ack, err := document(t, gw, "999", fileID)
	if err != nil || !strings.Contains(ack, "IK3*HL*12*2000*8~\nIK4*2**7~\nIK5*R*5~\nAK9*R*1*1*0~") {
		t.Fatalf("%v\n%s", err, ack)
	}
	if _, err := document(t, gw, "277CA", fileID); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Fatalf("a 277CA of a refused file: %v", err)
	}
}

func TestBadUploadsAreRefusedAtTheDoor(t *testing.T) {
	gw, claims := given(t, gateway.Config{MaxFileBytes: 4000})
	if _, err := submit(t, gw, nil); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "gateway.submit.empty") {
		t.Errorf("empty: %v", err)
	}
	if _, err := submit(t, gw, x12test.Professional(20, nil)); !strings.Contains(fmt.Sprint(err), "gateway.file.too-large") {
		t.Errorf("large: %v", err)
	}
	if claims.header != nil {
		t.Error("something was registered")
	}
}

func TestValidateFileRecordsNothing(t *testing.T) {
	gw, claims := given(t, gateway.Config{})
	up, err := gw.ValidateFile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Send(&gatewayv1.ValidateFileRequest{Data: threeOfFour()}); err != nil {
		t.Fatal(err)
	}
	res, err := up.CloseAndReceive()
	if err != nil || res.GetClaimCount() != 4 || len(res.GetProblems()) != 2 || claims.header != nil {
		t.Fatalf("%v %v", res, err)
	}
}

func TestAdviceOfARemittance(t *testing.T) {
	const remID = "rem_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	gw, claims := given(t, gateway.Config{Payers: map[string]x12.PayerProfile{"KEYSTONE": {Name: "KEYSTONE HEALTH", Line1: "1 MAIN ST", City: "CLEVELAND", State: "OH", PostalCode: "44113", OriginatingID: "1123456789"}}})
	b := x12test.Professional(1, nil)
	f, err := x12.ParseFile(bytes.NewReader(b), x12.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for c := range f.Claims(bytes.NewReader(b), 0, 1) {
		claims.rem = &claimsv1.GetRemittanceResponse{
			Remittance: &claimsv1.Remittance{RemittanceId: remID, PayerId: "KEYSTONE", PayeeNpi: x12test.Lakeside.NPI, PaidCents: 15000, PaymentDate: "2026-11-22", TraceNumber: "T1"},
			Claims: []*claimsv1.RemittedClaim{{ClaimId: "clm_" + strings.Repeat("b", 26), Submitted: c.Claim, Decision: &claimsv1.Decision{Status: claimsv1.ClaimStatus_CLAIM_STATUS_PAID,
				ChargeCents: 15000, AllowedCents: 15000, PaidCents: 15000, Lines: []*claimsv1.LineDecision{{Number: 1, ChargeCents: 10000, PaidCents: 10000}, {Number: 2, ChargeCents: 5000, PaidCents: 5000}}}}}}
	}
	out, err := document(t, gw, "835", remID)
	if err != nil || !strings.Contains(out, "BPR*I*150*C*CHK************20261122~") {
		t.Fatalf("%v\n%s", err, out)
	}
	claims.rem.Remittance.PaidCents++
	if out, err := document(t, gw, "835", remID); err == nil || out != "" {
		t.Fatalf("an advice that doesn't balance left: %s", out)
	}
	if _, err := document(t, gw, "835", fileID); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Fatalf("an 835 of a file: %v", err)
	}
}
