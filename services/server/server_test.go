package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
)

const claimID = "clm_abcdefghijklmnopqrstuvwxyz"

// claims is a service whose answers a test chooses.
type claims struct {
	claimsv1connect.UnimplementedClaimsServiceHandler
	get    func(context.Context) error
	watch  func(context.Context, *connect.ServerStream[claimsv1.WatchClaimResponse]) error
	submit func(context.Context, *claimsv1.SubmitClaimRequest) error
}

func (c *claims) GetClaim(ctx context.Context, r *claimsv1.GetClaimRequest) (*claimsv1.GetClaimResponse, error) {
	if c.get != nil {
		if err := c.get(ctx); err != nil {
			return nil, err
		}
	}
	return &claimsv1.GetClaimResponse{Claim: &claimsv1.ClaimSummary{ClaimId: r.GetClaimId()}}, nil
}

func (c *claims) SubmitClaim(ctx context.Context, r *claimsv1.SubmitClaimRequest) (*claimsv1.SubmitClaimResponse, error) {
	return &claimsv1.SubmitClaimResponse{}, c.submit(ctx, r)
}

func (c *claims) WatchClaim(ctx context.Context, _ *claimsv1.WatchClaimRequest, s *connect.ServerStream[claimsv1.WatchClaimResponse]) error {
	return c.watch(ctx, s)
}

// tokens believes "good-<subject>".
type tokens struct{}

func (tokens) Verify(_ context.Context, token string) (identity.Principal, error) {
	subject, ok := strings.CutPrefix(token, "good-")
	if !ok {
		return identity.Principal{}, problem.New(problem.Unauthenticated, problem.Problem{RuleID: "identity.token.invalid", Message: "bad token", Fix: "sign in"})
	}
	return identity.Principal{Subject: subject, Org: "lakeside", Roles: []identity.Role{identity.RoleSubmitter}}, nil
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is a server on loopback with the claims service mounted.
type running struct {
	*server.Server
	url  string
	log  *lockedBuffer
	tel  *telemetry.Telemetry
	stop func() error
}

func run(t *testing.T, cfg server.Config, impl *claims) *running {
	t.Helper()
	r := &running{log: &lockedBuffer{}}
	var err error
	r.tel, err = telemetry.Setup(context.Background(), telemetry.Config{Service: "claims", LogOutput: r.log})
	require.NoError(t, err)
	cfg.Address = "127.0.0.1:0"
	r.Server, err = server.New(cfg, server.Deps{Telemetry: r.tel, Verifier: tokens{}})
	require.NoError(t, err)
	r.Mount(claimsv1connect.NewClaimsServiceHandler(impl, r.Options()...))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { require.NoError(t, r.stop()) })
	address, err := r.Address(context.Background())
	require.NoError(t, err)
	r.url = "http://" + address.String()
	return r
}

// inside makes every client of the tests call without a connection, and direct
// without HTTP as well, where that goes. The tests run one at a time.
var inside, direct bool

// Given a server in the caller's own process, then calls that need no
// connection, and those that need no HTTP, behave in every way like those that
// have both.
func TestCallsInsideTheProcessAreTheSame(t *testing.T) {
	inside = true
	defer func() { inside, direct = false, false }()
	for _, direct = range []bool{false, true} {
		for name, test := range map[string]func(*testing.T){
			"caller and request id": TestTheCallerAndTheRequestIDReachTheHandler,
			"no good token":         TestWithoutAGoodTokenTheHandlerIsNotReached,
			"problems":              TestAProblemCrossesWholeButForItsCause,
			"kinds":                 TestEveryKindSurvivesTheWay,
			"details":               TestAnErrorMadeForTheWireKeepsItsDetailsAndGainsAProblem,
			"unknown errors":        TestWhatIsUnknownStaysInside,
			"schema":                TestASchemaViolationNamesFieldAndRuleButNoValue,
			"size":                  TestAnOversizedRequestIsRefusedAsTheCallersFault,
			"deadlines":             TestUnaryWorkIsBoundedAndStreamsAreNot,
			"stream errors":         TestAStreamsErrorIsAProblemToo,
			"audit":                 TestTheAuditRecordSaysWhoDidWhatOnWhichRulesWord,
			"drain":                 TestADrainEndsStreamsThatHaveNoEnd,
		} {
			t.Run(fmt.Sprintf("%s, direct %v", name, direct), test)
		}
	}
}

// Given a caller that leaves a stream, then its handler is told; given a
// handler that writes faster than it is read, then it waits.
func TestInsideStreamsAreBoundedAndEnd(t *testing.T) {
	const block, blocks = 64 << 10, 64
	var written atomic.Int64
	gone := make(chan struct{})
	tel, err := telemetry.Setup(context.Background(), telemetry.Config{Service: "claims", LogOutput: io.Discard})
	require.NoError(t, err)
	s, err := server.New(server.Config{}, server.Deps{Telemetry: tel, Verifier: tokens{}})
	require.NoError(t, err)
	s.MountPublic("/flood", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for range blocks {
			n, err := w.Write(make([]byte, block))
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	at, err := url.Parse("http://here")
	require.NoError(t, err)
	client := http.Client{Transport: s.Inside(at, http.DefaultTransport)}
	res, err := client.Get("http://here/flood")
	require.NoError(t, err)
	_, err = io.ReadFull(res.Body, make([]byte, block))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	<-gone
	require.Less(t, written.Load(), int64(blocks*block), "the rest was never written")

	_, err = res.Body.Read(make([]byte, 1))
	require.Error(t, err)
}

func (r *running) client(t *testing.T, cfg server.ClientConfig, token identity.TokenSource) claimsv1connect.ClaimsServiceClient {
	t.Helper()
	deps := server.ClientDeps{Tokens: token, Telemetry: r.tel}
	at, err := url.Parse(r.url)
	require.NoError(t, err)
	if direct {
		deps.Inside, deps.InsideURL = r.Server, at
	}
	c, err := server.NewClient(cfg, deps)
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	if inside && !direct {
		byHTTP := &http.Client{Transport: r.Inside(at, http.DefaultTransport)}
		return claimsv1connect.NewClaimsServiceClient(byHTTP, r.url, c.Options()...)
	}
	return claimsv1connect.NewClaimsServiceClient(c, r.url, c.Options()...)
}

func fixed(token string) identity.TokenSource {
	return identity.TokenFunc(func(context.Context) (string, error) { return token, nil })
}

func get(ctx context.Context, c claimsv1connect.ClaimsServiceClient) error {
	_, err := c.GetClaim(ctx, &claimsv1.GetClaimRequest{ClaimId: claimID})
	return err
}

func TestTheCallerAndTheRequestIDReachTheHandler(t *testing.T) {
	const id = "7d8f2d38-4fd4-4a7e-8f0c-2d2c9d6f3a11"
	for name, cfg := range map[string]server.ClientConfig{"HTTP/2": {}, "HTTP/1.1": {HTTP1: true}, "gzip": {Compress: true}} {
		t.Run(name, func(t *testing.T) {
			var seen identity.Principal
			var token, request string
			r := run(t, server.Config{}, &claims{get: func(ctx context.Context) error {
				seen, _ = identity.FromContext(ctx)
				token, _ = identity.TokenFromContext(ctx)
				request = telemetry.RequestID(ctx)
				return nil
			}})
			require.NoError(t, get(telemetry.WithRequestID(context.Background(), id), r.client(t, cfg, fixed("good-ann"))))
			require.Equal(t, "ann", seen.Subject)
			require.Equal(t, "good-ann", token)
			require.Equal(t, id, request)
		})
	}
}

func TestWithoutAGoodTokenTheHandlerIsNotReached(t *testing.T) {
	reached := false
	r := run(t, server.Config{}, &claims{get: func(context.Context) error { reached = true; return nil }})
	for name, source := range map[string]identity.TokenSource{"none": nil, "bad": fixed("forged")} {
		err := get(context.Background(), r.client(t, server.ClientConfig{}, source))
		require.True(t, problem.Is(err, problem.Unauthenticated), "%s: %v", name, err)
		require.NotEmpty(t, problem.As(err).Problems[0].Fix)
	}
	require.False(t, reached)
	require.Contains(t, r.log.String(), `"rule":"identity.token.invalid"`)
}

func TestAProblemCrossesWholeButForItsCause(t *testing.T) {
	sent := &problem.Error{Kind: problem.Conflict, Problems: []problem.Problem{
		{RuleID: "claims.stale", FieldPath: "claim.lines[1].procedure", X12Path: "ST 0001 / SV101", Code: "A3", Message: "it has moved on", Fix: "load it again"},
		{RuleID: "claims.other", Message: "and this"},
	}}
	r := run(t, server.Config{}, &claims{get: func(context.Context) error {
		return fmt.Errorf("handler: %w", server.WithDetail(sent.Because(errors.New("redis: secret host")), &ledgerv1.Conflict{Stream: "claim-x", ActualRevision: 7}))
	}})
	err := get(context.Background(), r.client(t, server.ClientConfig{}, fixed("good-ann")))

	var got *problem.Error
	require.True(t, errors.As(err, &got))
	require.Equal(t, sent.Kind, got.Kind)
	require.Equal(t, sent.Problems, got.Problems)
	require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(err))
	conflict, ok := server.Detail[*ledgerv1.Conflict](err)
	require.True(t, ok)
	require.EqualValues(t, 7, conflict.GetActualRevision())
	require.NotContains(t, fmt.Sprintf("%v %v", err, errors.Unwrap(err)), "secret host")
}

func TestEveryKindSurvivesTheWay(t *testing.T) {
	kinds := []problem.Kind{
		problem.Invalid, problem.NotFound, problem.Conflict, problem.Unauthenticated,
		problem.Forbidden, problem.Exhausted, problem.Unavailable, problem.Internal,
	}
	var kind problem.Kind
	r := run(t, server.Config{}, &claims{get: func(context.Context) error {
		return problem.New(kind, problem.Problem{RuleID: "r", Message: "m", Fix: "f"})
	}})
	c := r.client(t, server.ClientConfig{}, fixed("good-ann"))
	for _, kind = range kinds {
		err := get(context.Background(), c)
		require.True(t, problem.Is(err, kind), "%s", kind)
		wait, told := server.Detail[*errdetails.RetryInfo](err)
		require.Equal(t, kind == problem.Exhausted || kind == problem.Unavailable, told, "%s", kind)
		if told {
			require.Positive(t, wait.GetRetryDelay().AsDuration(), "%s", kind)
		}
	}
}

func TestAnErrorMadeForTheWireKeepsItsDetailsAndGainsAProblem(t *testing.T) {
	r := run(t, server.Config{}, &claims{get: func(context.Context) error {
		err := connect.NewError(connect.CodeFailedPrecondition, problem.New(problem.Conflict, problem.Problem{RuleID: "ledger.conflict", Message: "stream moved"}))
		detail, detailErr := connect.NewErrorDetail(&ledgerv1.Conflict{Stream: "claim-x", ActualRevision: 3})
		require.NoError(t, detailErr)
		err.AddDetail(detail)
		return err
	}})
	err := get(context.Background(), r.client(t, server.ClientConfig{}, fixed("good-ann")))
	require.Equal(t, "ledger.conflict", problem.As(err).Problems[0].RuleID)
	conflict, ok := server.Detail[*ledgerv1.Conflict](err)
	require.True(t, ok)
	require.EqualValues(t, 3, conflict.GetActualRevision())
}

func TestWhatIsUnknownStaysInside(t *testing.T) {
	for name, fault := range map[string]func() error{
		"an error":        func() error { return errors.New("pq: row for JOHN SMITH") },
		"a panic":         func() error { panic("JOHN SMITH") },
		"a runtime error": func() error { var list []int; _ = list[len(name0())]; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, server.Config{}, &claims{get: func(context.Context) error { return fault() }})
			err := get(context.Background(), r.client(t, server.ClientConfig{}, fixed("good-ann")))
			require.True(t, problem.Is(err, problem.Internal), "%v", err)
			require.NotContains(t, err.Error(), "JOHN")
			require.NotContains(t, errors.Unwrap(err).Error(), "JOHN")
			if name != "an error" {
				require.Contains(t, r.log.String(), "server_test.go")
				require.NotContains(t, r.log.String(), "JOHN", "a panic's value may quote data")
			}
		})
	}
}

func name0() string { return "three" }

func TestASchemaViolationNamesFieldAndRuleButNoValue(t *testing.T) {
	r := run(t, server.Config{}, &claims{submit: func(context.Context, *claimsv1.SubmitClaimRequest) error { return nil }})
	c := r.client(t, server.ClientConfig{}, fixed("good-ann"))
	_, err := c.SubmitClaim(context.Background(), &claimsv1.SubmitClaimRequest{
		RequestId: "r1", Claim: &claimsv1.Claim{
			Form: claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL, PatientControlNumber: "A", FrequencyCode: "1",
			Payer: &claimsv1.Payer{Id: "KEYSTONE"}, BillingProvider: &claimsv1.Provider{},
			Subscriber: &claimsv1.Person{LastName: "ZEBRAWOOD", BirthDate: "ZEBRAWOOD"},
			Lines:      []*claimsv1.ServiceLine{{Number: 1, Modifiers: []string{"25", "ZEBRAWOOD"}}},
		},
	})
	refused := problem.As(err)
	require.Equal(t, problem.Invalid, refused.Kind)
	paths := map[string]string{}
	for _, p := range refused.Problems {
		paths[p.FieldPath] = p.RuleID
	}
	require.Equal(t, map[string]string{
		"claim.subscriber.birth_date": "schema.string.pattern",
		"claim.lines[0].modifiers[1]": "schema.string.len",
	}, paths)
	require.NotContains(t, fmt.Sprint(err, errors.Unwrap(err)), "ZEBRAWOOD")
	require.NotContains(t, r.log.String(), "ZEBRAWOOD")
}

func TestAnIDCutShortIsAnsweredInWords(t *testing.T) {
	r := run(t, server.Config{}, &claims{})
	c := r.client(t, server.ClientConfig{}, fixed("good-ann"))
	_, err := c.GetClaim(context.Background(), &claimsv1.GetClaimRequest{ClaimId: "clm_taho3ksdyap6z3avbfs3wnkt6"})
	refused := problem.As(err)
	require.Equal(t, problem.Invalid, refused.Kind)
	require.Len(t, refused.Problems, 1)
	require.Equal(t, "claim_id", refused.Problems[0].FieldPath)
	require.Equal(t, "schema.string.pattern", refused.Problems[0].RuleID)
	require.Equal(t, "is no whole id: clm_ and 26 letters a to z or digits 2 to 7", refused.Problems[0].Message)
}

func TestMalformedJSONIsNotQuotedBack(t *testing.T) {
	r := run(t, server.Config{}, &claims{})
	status, body := r.post(t, "GetClaim", `{"claimId": {"name": "ZEBRAWOOD"}}`)
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, body, "line 1:")
	require.NotContains(t, body, "ZEBRAWOOD")
}

func (r *running) post(t *testing.T, method, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.url+"/probity.claims.v1.ClaimsService/"+method, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer good-ann")
	req.Header.Set(server.RequestIDHeader, "JOHN-SMITH")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NotEqual(t, "JOHN-SMITH", resp.Header.Get(server.RequestIDHeader), "only a UUID is kept")
	require.Len(t, resp.Header.Get(server.RequestIDHeader), 36)
	return resp.StatusCode, string(answer)
}

func TestAnOversizedRequestIsRefusedAsTheCallersFault(t *testing.T) {
	r := run(t, server.Config{ReadMaxBytes: 1 << 10}, &claims{})
	status, body := r.post(t, "GetClaim", `{"minToken":"`+strings.Repeat("x", 2<<10)+`"}`)
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, body, "request.too-large")
}

func TestUnaryWorkIsBoundedAndStreamsAreNot(t *testing.T) {
	release := make(chan struct{})
	r := run(t, server.Config{RPCTimeout: server.Duration(50 * time.Millisecond)}, &claims{
		get: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		watch: func(ctx context.Context, s *connect.ServerStream[claimsv1.WatchClaimResponse]) error {
			_, bounded := ctx.Deadline()
			if bounded {
				return errors.New("a stream must have no deadline")
			}
			// A client's call returns with the first message.
			if err := s.Send(&claimsv1.WatchClaimResponse{}); err != nil {
				return err
			}
			<-release
			return s.Send(&claimsv1.WatchClaimResponse{})
		},
	})
	c := r.client(t, server.ClientConfig{}, fixed("good-ann"))
	stream, err := c.WatchClaim(context.Background(), &claimsv1.WatchClaimRequest{ClaimId: claimID})
	require.NoError(t, err)
	err = get(context.Background(), c)
	require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
	require.Equal(t, "rpc.deadline", problem.As(err).Problems[0].RuleID)

	close(release)
	require.True(t, stream.Receive())
	require.True(t, stream.Receive())
	require.False(t, stream.Receive())
	require.NoError(t, stream.Err())
}

func TestAStreamsErrorIsAProblemToo(t *testing.T) {
	r := run(t, server.Config{}, &claims{watch: func(context.Context, *connect.ServerStream[claimsv1.WatchClaimResponse]) error {
		return problem.New(problem.NotFound, problem.Problem{RuleID: "claims.not-found", Message: "no such claim", Fix: "check the id"})
	}})
	c := r.client(t, server.ClientConfig{}, fixed("good-ann"))
	stream, err := c.WatchClaim(context.Background(), &claimsv1.WatchClaimRequest{ClaimId: claimID})
	require.NoError(t, err)
	require.False(t, stream.Receive())
	require.True(t, problem.Is(stream.Err(), problem.NotFound), "%v", stream.Err())

	failing := r.client(t, server.ClientConfig{}, identity.CallerOr(nil))
	_, err = failing.WatchClaim(context.Background(), &claimsv1.WatchClaimRequest{ClaimId: claimID})
	require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
}

func TestAnUnreachableServiceIsRetryable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	c, err := server.NewClient(server.ClientConfig{}, server.ClientDeps{})
	require.NoError(t, err)
	err = get(context.Background(), claimsv1connect.NewClaimsServiceClient(c, "http://"+listener.Addr().String(), c.Options()...))
	require.True(t, problem.As(err).Retryable(), "%v", err)
}

func TestTheAuditRecordSaysWhoDidWhatOnWhichRulesWord(t *testing.T) {
	authorizer, err := identity.NewAuthorizer()
	require.NoError(t, err)
	r := run(t, server.Config{}, &claims{get: func(ctx context.Context) error {
		return authorizer.Authorize(ctx, "GetClaim", identity.Resource{Type: identity.Claim, ID: claimID, Org: "lakeside"})
	}})
	require.NoError(t, get(context.Background(), r.client(t, server.ClientConfig{}, fixed("good-ann"))))
	var record map[string]any
	for _, line := range strings.Split(r.log.String(), "\n") {
		if strings.Contains(line, `"msg":"audit"`) {
			require.NoError(t, json.Unmarshal([]byte(line), &record))
		}
	}
	require.Equal(t, "/probity.claims.v1.ClaimsService/GetClaim", record["action"])
	require.Equal(t, "ann", record["subject"])
	require.Equal(t, "lakeside", record["org"])
	require.Equal(t, "Claim/"+claimID, record["resource"])
	require.Equal(t, "submitter.own", record["policy"])
	require.Equal(t, "ok", record["outcome"])
	require.NotEmpty(t, record["trace_id"])
	require.NotEmpty(t, record["request_id"])
}

func TestHealthFollowsTheChecksAndTheDrain(t *testing.T) {
	var broken error
	var mu sync.Mutex
	hold, entered := make(chan struct{}), make(chan struct{})
	r := run(t, server.Config{}, &claims{get: func(context.Context) error { close(entered); <-hold; return nil }})
	r.AddCheck("ledger", func(context.Context) error { mu.Lock(); defer mu.Unlock(); return broken })
	require.Equal(t, http.StatusOK, status(t, r.url+"/healthz"))
	require.Equal(t, http.StatusOK, status(t, r.url+"/readyz"))
	require.Equal(t, http.StatusOK, status(t, r.url+"/metrics"))

	mu.Lock()
	broken = errors.New("away")
	mu.Unlock()
	require.Equal(t, http.StatusServiceUnavailable, status(t, r.url+"/readyz"))
	require.Equal(t, http.StatusOK, status(t, r.url+"/healthz"), "not ready is not dead")

	// Given a request in flight, when the process is told to stop, then the request still ends well.
	result := make(chan error, 1)
	c := r.client(t, server.ClientConfig{}, fixed("good-ann"))
	go func() { result <- get(context.Background(), c) }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	require.Eventually(t, func() bool { return !accepts(r.url) }, 5*time.Second, 5*time.Millisecond)
	close(hold)
	require.NoError(t, <-result)
	require.NoError(t, <-stopped)
}

func TestADrainEndsStreamsThatHaveNoEnd(t *testing.T) {
	r := run(t, server.Config{DrainTimeout: server.Duration(200 * time.Millisecond)}, &claims{
		watch: func(ctx context.Context, s *connect.ServerStream[claimsv1.WatchClaimResponse]) error {
			if err := s.Send(&claimsv1.WatchClaimResponse{}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		},
	})
	stream, err := r.client(t, server.ClientConfig{}, fixed("good-ann")).WatchClaim(context.Background(), &claimsv1.WatchClaimRequest{ClaimId: claimID})
	require.NoError(t, err)
	require.True(t, stream.Receive())
	require.NoError(t, r.stop(), "the drain ends in time")
	require.False(t, stream.Receive())
	require.True(t, problem.As(stream.Err()).Retryable(), "%v", stream.Err())
}

func accepts(url string) bool {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

func status(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

func TestDurationsCarryTheirUnit(t *testing.T) {
	var cfg server.Config
	require.NoError(t, json.Unmarshal([]byte(`{"rpcTimeout":"1m30s"}`), &cfg))
	require.Equal(t, 90*time.Second, time.Duration(cfg.RPCTimeout))
	require.Error(t, json.Unmarshal([]byte(`{"rpcTimeout":30}`), &cfg))
}
