package codec_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
	"github.com/probity-health/probity/workflows/codec"
	"github.com/probity-health/probity/workflows/worker"
)

const (
	claimID = "clm_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	origin  = "https://temporal.example"
)

var keys = worker.Keys{Current: [32]byte{1, 2, 3}}

// callers by their token.
var callers = map[string]identity.Principal{
	"keystone": {Subject: "adj-1", Org: "payer-keystone", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"keystone"}},
	"rival":    {Subject: "adj-2", Org: "payer-rival", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"rival"}},
	"all":      {Subject: "adj-3", Org: "tpa", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{identity.AllPayers}},
	"auditor":  {Subject: "aud-1", Org: "auditor", Roles: []identity.Role{identity.RoleAuditor}},
	"biller":   {Subject: "bil-1", Org: "lakeside", Roles: []identity.Role{identity.RoleSubmitter}},
	"service":  {Subject: "svc-1", Org: "probity", Roles: []identity.Role{identity.RoleService}},
}

// installation is the services that the endpoint calls, and the verifier.
type installation struct {
	auth *identity.Authorizer

	mu     sync.Mutex
	events []*ledgerv1.AppendRequest
	away   bool // the ledger takes nothing
}

func (i *installation) Verify(_ context.Context, token string) (identity.Principal, error) {
	p, known := callers[token]
	if !known {
		return p, problem.New(problem.Unauthenticated, problem.Problem{RuleID: "identity.token.invalid", Message: "bad token", Fix: "sign in"})
	}
	return p, nil
}

// GetClaim answers as the claims service does: hidden from who may not see it.
func (i *installation) GetClaim(ctx context.Context, q *claimsv1.GetClaimRequest) (*claimsv1.GetClaimResponse, error) {
	c := &claimsv1.ClaimSummary{ClaimId: q.GetClaimId(), PayerId: "keystone", SubmitterOrg: "lakeside"}
	err := i.auth.Authorize(ctx, "GetClaim", identity.Resource{Type: identity.Claim, ID: claimID, Org: c.GetSubmitterOrg(), Payer: c.GetPayerId()})
	if err != nil || q.GetClaimId() != claimID {
		return nil, problem.New(problem.NotFound, problem.Problem{RuleID: "claims.not-found", Message: "there is no such claim", Fix: "check the id"})
	}
	return &claimsv1.GetClaimResponse{Claim: c}, nil
}

func (i *installation) Append(_ context.Context, q *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.away {
		return nil, errors.New("away")
	}
	i.events = append(i.events, q)
	return &ledgerv1.AppendResponse{}, nil
}

type running struct {
	*installation
	url string
	log *bytes.Buffer
}

func serve(t *testing.T, limit int) *running {
	auth, err := identity.NewAuthorizer()
	require.NoError(t, err)
	r := &running{installation: &installation{auth: auth}, log: &bytes.Buffer{}}
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{LogOutput: r.log})
	require.NoError(t, err)
	srv, err := server.New(server.Config{ReadMaxBytes: limit}, server.Deps{Telemetry: tel, Verifier: r})
	require.NoError(t, err)
	srv.MountPublic(codec.Path, codec.New(codec.Deps{
		Config: codec.Config{Origins: []string{origin}}, Keys: keys, Namespace: "probity",
		Claims: r, Ledger: r, Authorizer: auth, PayerOf: r.payerOf,
	}, srv))
	listening := httptest.NewServer(srv.Handler())
	t.Cleanup(listening.Close)
	r.url = listening.URL
	return r
}

// remote is Temporal's own client of the protocol.
func (r *running) remote(token string, more ...string) converter.PayloadCodec {
	return converter.NewRemotePayloadCodec(converter.RemotePayloadCodecOptions{
		Endpoint: r.url + strings.TrimSuffix(codec.Path, "/"),
		ModifyRequest: func(q *http.Request) error {
			q.Header.Set("X-Namespace", "probity")
			if token != "" {
				q.Header.Set("Authorization", "Bearer "+token)
			}
			for i := 0; i < len(more); i += 2 {
				q.Header.Set(more[i], more[i+1])
			}
			return nil
		},
	})
}

func sealed(t testing.TB, workflowID, text string) *commonpb.Payload {
	data, _ := worker.Converters(keys)
	p, err := converter.WithDataConverterSerializationContext(data, converter.WorkflowSerializationContext{WorkflowID: workflowID}).ToPayload(text)
	require.NoError(t, err)
	return p
}

// payerOf is what the search attributes of workflows say.
func (i *installation) payerOf(_ context.Context, workflowID string) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.away {
		return "", errors.New("away")
	}
	return map[string]string{"appeal:apl_keystone": "keystone"}[workflowID], nil
}

// Appeals and payment cycles are their payer's reviewers' to see, too; what
// names no payer, or whose payer can't be found out, is not.
func TestAPayersReviewersSeeItsAppealsAndPaymentCycles(t *testing.T) {
	r := serve(t, 0)
	open := func(who, workflow string) error {
		_, err := r.remote(who).Decode([]*commonpb.Payload{sealed(t, workflow, "MARKER")})
		return err
	}
	for _, id := range []string{"appeal:apl_keystone", "payments:keystone"} {
		require.NoError(t, open("keystone", id), id)
		require.NoError(t, open("all", id), id)
		require.Error(t, open("rival", id), id)
	}
	for _, id := range []string{"appeal:apl_unknown", "payments:rival", "payments:", "file:fil_a"} {
		require.Error(t, open("keystone", id), id)
	}
	r.mu.Lock()
	r.away = true
	r.mu.Unlock()
	require.Error(t, open("keystone", "appeal:apl_keystone"))
	require.Len(t, r.events, 4)
}

func TestAPayersReviewersSeeItsClaimsPayloadsAndTheLedgerSaysSo(t *testing.T) {
	r := serve(t, 0)
	mine := []*commonpb.Payload{sealed(t, "claim:"+claimID, "MARKER-A"), sealed(t, "claim:"+claimID, "MARKER-B")}

	opened, err := r.remote("keystone", "Origin", origin).Decode(mine)
	require.NoError(t, err)
	var said string
	require.NoError(t, converter.GetDefaultDataConverter().FromPayload(opened[1], &said))
	require.Equal(t, "MARKER-B", said)

	require.Len(t, r.events, 1)
	q := r.events[0]
	require.Equal(t, "opened-claim:"+claimID, q.GetWrites()[0].GetStream())
	require.Equal(t, "adj-1", q.GetActor())
	var event eventsv1.PayloadsOpened
	require.NoError(t, proto.Unmarshal(q.GetWrites()[0].GetEvents()[0].GetPayload(), &event))
	require.Equal(t, "adj-1", event.GetOpenedBy())
	require.Equal(t, "adjudicator.payer", event.GetRule())
	require.EqualValues(t, 2, event.GetPayloadCount())
	require.Contains(t, r.log.String(), `"action":"DecodePayloads"`)
	require.NotContains(t, r.log.String(), "MARKER")
}

func TestWithoutTheEventOnTheLedgerNothingIsShown(t *testing.T) {
	r := serve(t, 0)
	r.away = true
	_, err := r.remote("keystone").Decode([]*commonpb.Payload{sealed(t, "claim:"+claimID, "MARKER")})
	require.ErrorContains(t, err, "codec.unrecorded")
	require.NotContains(t, err.Error(), "MARKER")
}

func TestNobodyElseSeesAnything(t *testing.T) {
	ofClaim, ofFile := "claim:"+claimID, "file:fil_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	for name, c := range map[string]struct{ caller, workflow, says string }{
		"nobody":                   {"", ofClaim, "identity.no-token"},
		"a forged token":           {"forged", ofClaim, "identity.token.invalid"},
		"another payer's reviewer": {"rival", ofClaim, "claims.not-found"},
		"an auditor":               {"auditor", ofClaim, "identity.denied"},
		"the claim's submitter":    {"biller", ofClaim, "identity.denied"},
		"one payer, a file":        {"keystone", ofFile, "identity.denied"},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, 0)
			// One payload that may be seen doesn't open the way for another.
			_, err := r.remote(c.caller).Decode([]*commonpb.Payload{sealed(t, c.workflow, "MARKER")})
			require.ErrorContains(t, err, c.says)
			require.Empty(t, r.events)
		})
	}
	r := serve(t, 0)
	_, err := r.remote("all").Decode([]*commonpb.Payload{sealed(t, ofFile, "x"), sealed(t, ofClaim, "y")})
	require.NoError(t, err)
	require.Len(t, r.events, 2, "an event a workflow")
	_, err = r.remote("keystone").Decode([]*commonpb.Payload{sealed(t, ofClaim, "y"), sealed(t, ofFile, "x")})
	require.ErrorContains(t, err, "identity.denied", "one that may be seen opens no way to another")
	require.Len(t, r.events, 2)
}

func TestAPayloadOpensForTheWorkflowItWasSealedForOnly(t *testing.T) {
	r := serve(t, 0)
	moved := sealed(t, "file:fil_aaaaaaaaaaaaaaaaaaaaaaaaaa", "MARKER")
	moved.Metadata["workflow"] = []byte("claim:" + claimID)
	inClear, err := converter.GetDefaultDataConverter().ToPayload("x")
	require.NoError(t, err)
	for _, c := range []struct {
		p    *commonpb.Payload
		says string
	}{{moved, "codec.closed"}, {inClear, "codec.unnamed"}} {
		_, err := r.remote("all").Decode([]*commonpb.Payload{c.p})
		require.ErrorContains(t, err, c.says)
	}
	require.Empty(t, r.events)
}

func TestOnlyServicesSealAndForANamedWorkflow(t *testing.T) {
	r := serve(t, 0)
	plain, err := converter.GetDefaultDataConverter().ToPayload("x")
	require.NoError(t, err)
	_, err = r.remote("all", codec.WorkflowHeader, "file:1").Encode([]*commonpb.Payload{plain})
	require.ErrorContains(t, err, "services.only")
	_, err = r.remote("service").Encode([]*commonpb.Payload{plain})
	require.ErrorContains(t, err, "codec.workflow")
	done, err := r.remote("service", codec.WorkflowHeader, "file:1").Encode([]*commonpb.Payload{plain})
	require.NoError(t, err)
	opened, err := worker.Codec(keys, "file:1").Decode(done)
	require.NoError(t, err)
	require.True(t, proto.Equal(plain, opened[0]))
}

func TestABrowserAsksFromTheConfiguredOriginOnly(t *testing.T) {
	r := serve(t, 0)
	ask := func(method, from string) *http.Response {
		q, err := http.NewRequestWithContext(t.Context(), method, r.url+codec.Path+"decode", nil)
		require.NoError(t, err)
		q.Header.Set("Origin", from)
		q.Header.Set("Access-Control-Request-Method", "POST")
		answer, err := http.DefaultClient.Do(q)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, "Origin", answer.Header.Get("Vary"))
		return answer
	}
	good := ask(http.MethodOptions, origin)
	require.Equal(t, http.StatusNoContent, good.StatusCode)
	require.Equal(t, origin, good.Header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, good.Header.Get("Access-Control-Allow-Headers"), "X-Namespace")
	require.Equal(t, origin, ask(http.MethodPost, origin).Header.Get("Access-Control-Allow-Origin"), "also a refusal may be read")
	for _, method := range []string{http.MethodOptions, http.MethodPost} {
		for _, from := range []string{"https://evil.example", "null", "http://temporal.example", origin + ":8443"} {
			bad := ask(method, from)
			require.Equal(t, http.StatusForbidden, bad.StatusCode)
			require.Empty(t, bad.Header.Get("Access-Control-Allow-Origin"))
		}
	}
}

func TestBadRequestsAreRefusedWithWhatToDo(t *testing.T) {
	r := serve(t, 64<<10)
	for name, c := range map[string]struct{ namespace, body, says string }{
		"another namespace": {"default", `{"payloads":[]}`, "codec.namespace"},
		"no JSON":           {"probity", `MARKER`, "codec.body"},
		"too large":         {"probity", `{"payloads":[{"data":"` + strings.Repeat("A", 70_000) + `"}]}`, "request.too-large"},
		"too many":          {"probity", `{"payloads":[` + strings.Repeat(`{},`, 2000) + `{}]}`, "codec.count"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+codec.Path+"decode", strings.NewReader(c.body))
			require.NoError(t, err)
			q.Header.Set("X-Namespace", c.namespace)
			q.Header.Set("Authorization", "Bearer all")
			answer, err := http.DefaultClient.Do(q)
			require.NoError(t, err)
			defer answer.Body.Close()
			said, err := io.ReadAll(answer.Body)
			require.NoError(t, err)
			require.Equal(t, http.StatusBadRequest, answer.StatusCode, string(said))
			require.Contains(t, string(said), c.says)
			require.NotContains(t, string(said), "MARKER")
		})
	}
}

func TestOriginsAreOrigins(t *testing.T) {
	require.NoError(t, codec.Config{Origins: []string{origin, "http://127.0.0.1:8233"}}.Check())
	for _, bad := range []string{"*", "temporal.example", origin + "/", "https://u@temporal.example", "ftp://temporal.example", ""} {
		require.Error(t, codec.Config{Origins: []string{bad}}.Check(), bad)
	}
}

func FuzzDecoding(f *testing.F) {
	good, err := protojson.Marshal(&commonpb.Payloads{Payloads: []*commonpb.Payload{sealed(f, "file:1", "MARKER")}})
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte(`{"payloads":[{"metadata":{"encoding":"YmluYXJ5L3Byb2JpdHktYWVzMjU2Z2Nt","workflow":"ZmlsZTox"},"data":"AA=="}]}`))
	auth, err := identity.NewAuthorizer()
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte) {
		i := &installation{auth: auth}
		h := codec.New(codec.Deps{Keys: keys, Namespace: "probity", Claims: i, Ledger: i, Authorizer: auth}, direct{})
		q := httptest.NewRequestWithContext(identity.WithPrincipal(t.Context(), callers["all"]), http.MethodPost, codec.Path+"decode", bytes.NewReader(body))
		q.Header.Set("X-Namespace", "probity")
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, q)
		// Nothing is ever shown without its event.
		if answer.Code == http.StatusOK && bytes.Contains(answer.Body.Bytes(), []byte(`"data"`)) {
			require.NotEmpty(t, i.events)
		}
	})
}

// direct is a chassis without any.
type direct struct{}

func (direct) Plain(_ string, h server.Plain) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		answer, err := h(r.Context(), r, body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = w.Write(answer)
	})
}
