// Package codec is the endpoint by which Temporal's own tools, its web UI and
// its command line, show what Probity's payloads hold: the remote codec
// protocol, POST …/decode and …/encode of a temporal.api.common.v1.Payloads
// as JSON, with the namespace in X-Namespace.
//
// Payloads stay sealed wherever Temporal keeps them; this is the one place
// that opens them for a person. So it asks what any RPC asks: a token, the
// policy set's word for each workflow concerned (a claim's payloads are for
// those who review that payer's claims, all others for those who act for every
// payer), and a PayloadsOpened event on the ledger before anything is answered.
// When the ledger can't take the event nothing is shown.
//
// A browser may ask only from the configured origins. A payload opens only
// with the id of its workflow as associated data; the tools don't send it, so
// the payload names its workflow itself.
package codec

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/payment"
	"github.com/probity-health/probity/workflows/worker"
)

const (
	// Path under which the endpoint is mounted: the tools are given the URL
	// without the last element.
	Path = "/codec/"

	// WorkflowHeader names the workflow that encoded payloads are for.
	WorkflowHeader = "X-Workflow-Id"

	namespaceHeader = "X-Namespace"

	// One request's bounds: a page of a history holds far fewer.
	maxPayloads  = 2000
	maxWorkflows = 50
)

// Config of the endpoint; the zero value serves no browser.
type Config struct {
	// Origins that a browser may ask from: the web UI's, "https://temporal.example".
	Origins []string `json:"origins,omitempty"`
}

// Check refuses what isn't an origin (RFC 6454): scheme, host and port alone.
func (c Config) Check() error {
	for _, o := range c.Origins {
		u, err := url.Parse(o)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.Scheme+"://"+u.Host != o {
			return fmt.Errorf("codec.origins: %q is not an origin like https://temporal.example", o)
		}
	}
	return nil
}

// Claims reads a claim as the caller; its client must forward the caller's token.
type Claims interface {
	GetClaim(context.Context, *claimsv1.GetClaimRequest) (*claimsv1.GetClaimResponse, error)
}

// Ledger takes the event that says who is shown what; its client is this process's own.
type Ledger interface {
	Append(context.Context, *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error)
}

// Authorizer is the policy set; *identity.Authorizer is the real one.
type Authorizer interface {
	Authorize(ctx context.Context, action string, r identity.Resource) error
	Decide(p identity.Principal, action string, r identity.Resource) identity.Decision
}

// Chassis makes an endpoint of a function; *server.Server is the real one.
type Chassis interface {
	Plain(action string, h server.Plain) http.Handler
}

// Deps are what the endpoint works with.
type Deps struct {
	Config
	// Keys that seal and open.
	Keys worker.Keys
	// Namespace that requests must name.
	Namespace string
	Claims    Claims
	Ledger    Ledger
	// PayerOf tells a workflow's payer as its search attributes have it, empty
	// where they name none; see hook.PayerOf. nil knows none, and then what is
	// of no claim is for those of all payers.
	PayerOf    func(ctx context.Context, workflowID string) (string, error)
	Authorizer Authorizer
	// NewID makes the ids of appends; nil makes random ones.
	NewID func() string
}

// New returns the endpoint's handler for Path; it authenticates by itself.
func New(d Deps, s Chassis) http.Handler {
	if d.NewID == nil {
		d.NewID = uuid.NewString
	}
	e := &endpoint{d}
	mux := http.NewServeMux()
	mux.Handle("POST "+Path+"decode", s.Plain("DecodePayloads", e.decode))
	mux.Handle("POST "+Path+"encode", s.Plain("EncodePayloads", e.encode))
	return e.crossOrigin(mux)
}

type endpoint struct{ Deps }

// crossOrigin lets browsers in from the configured origins alone (Fetch
// standard, CORS protocol). A request without an origin is no browser's page.
func (e *endpoint) crossOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Origin")
		if origin := r.Header.Get("Origin"); origin != "" {
			if !slices.Contains(e.Origins, origin) {
				http.Error(w, "this origin may not ask for payloads; codec.origins of the worker's configuration names those that may", http.StatusForbidden)
				return
			}
			w.Header().Set("Access-Control-Allow-Origin", origin)
			if r.Method == http.MethodOptions {
				w.Header().Set("Access-Control-Allow-Methods", http.MethodPost)
				w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, "+namespaceHeader)
				w.Header().Set("Access-Control-Max-Age", "600")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// read checks what both directions share.
func (e *endpoint) read(r *http.Request, body []byte) (*commonpb.Payloads, error) {
	if got := r.Header.Get(namespaceHeader); got != e.Namespace {
		return nil, problem.Invalidf("codec.namespace", namespaceHeader, "this endpoint opens payloads of the namespace %s only", e.Namespace)
	}
	var in commonpb.Payloads
	// The parser's own text may quote the body.
	if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, &in) != nil {
		return nil, problem.Invalidf("codec.body", "", "the body is not the JSON of temporal.api.common.v1.Payloads")
	}
	if n := len(in.GetPayloads()); n > maxPayloads {
		return nil, problem.Invalidf("codec.count", "payloads", "a request holds at most %d payloads", maxPayloads)
	}
	return &in, nil
}

func (e *endpoint) decode(ctx context.Context, r *http.Request, body []byte) ([]byte, error) {
	in, err := e.read(r, body)
	if err != nil {
		return nil, err
	}
	byWorkflow := map[string][]int{}
	for i, p := range in.GetPayloads() {
		id := worker.WorkflowOf(p)
		if id == "" {
			return nil, problem.New(problem.Invalid, problem.Problem{
				RuleID: "codec.unnamed", FieldPath: fmt.Sprintf("payloads[%d]", i), Message: "the payload does not name the workflow it was sealed for",
				Fix: "only payloads that Probity sealed can be shown; those of builds before this endpoint can't",
			})
		}
		byWorkflow[id] = append(byWorkflow[id], i)
	}
	if len(byWorkflow) > maxWorkflows {
		return nil, problem.Invalidf("codec.workflows", "payloads", "a request concerns at most %d workflows", maxWorkflows)
	}
	ids := slices.Sorted(maps.Keys(byWorkflow))
	rules := map[string]string{}
	for _, id := range ids {
		if rules[id], err = e.authorize(ctx, "DecodePayloads", id); err != nil {
			return nil, err
		}
	}
	// Opened before the event is written, so that what can't be opened by
	// anyone leaves no event; nothing has left this function yet.
	out := &commonpb.Payloads{Payloads: make([]*commonpb.Payload, len(in.GetPayloads()))}
	for _, id := range ids {
		codec := worker.Codec(e.Keys, id)
		for _, i := range byWorkflow[id] {
			opened, err := codec.Decode([]*commonpb.Payload{in.GetPayloads()[i]})
			if err != nil {
				return nil, problem.New(problem.Invalid, problem.Problem{
					RuleID: "codec.closed", FieldPath: fmt.Sprintf("payloads[%d]", i), Message: "the payload does not open for the workflow it names",
					Fix: "check that this worker has the key the payload was sealed with (temporal.previousPayloadKeyFiles), and that nobody changed it",
				}).Because(err)
			}
			out.Payloads[i] = opened[0]
		}
	}
	for _, id := range ids {
		if err := e.record(ctx, id, rules[id], byWorkflow[id], in); err != nil {
			return nil, err
		}
	}
	return protojson.Marshal(out)
}

// encode seals payloads for a workflow, for services that speak to Temporal
// by its own tools. A person may not: who can seal a message could put a
// review into another's mouth.
func (e *endpoint) encode(ctx context.Context, r *http.Request, body []byte) ([]byte, error) {
	if err := e.Authorizer.Authorize(ctx, "EncodePayloads", identity.Resource{Type: identity.Workflow}); err != nil {
		return nil, err
	}
	in, err := e.read(r, body)
	if err != nil {
		return nil, err
	}
	id := r.Header.Get(WorkflowHeader)
	if id == "" || len(id) > 200 {
		return nil, problem.New(problem.Invalid, problem.Problem{
			RuleID: "codec.workflow", FieldPath: WorkflowHeader, Message: "a payload is sealed for one workflow and the request names none",
			Fix: "name it in the header " + WorkflowHeader,
		})
	}
	sealed, err := worker.Codec(e.Keys, id).Encode(in.GetPayloads())
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(&commonpb.Payloads{Payloads: sealed})
}

// authorize returns the rule that lets the caller see a workflow's payloads. A
// claim is first read as the caller, so that who may not see it learns nothing.
func (e *endpoint) authorize(ctx context.Context, action, workflowID string) (rule string, err error) {
	resource := identity.Resource{Type: identity.Workflow, ID: workflowID}
	if payer, ok := strings.CutPrefix(workflowID, payment.WorkflowID("")); ok {
		resource.Payer = payer
	} else if strings.HasPrefix(workflowID, claim.AppealWorkflowID("")) && e.PayerOf != nil {
		if resource.Payer, err = e.PayerOf(ctx, workflowID); err != nil {
			return "", problem.New(problem.Unavailable, problem.Problem{
				RuleID: "codec.payer", Message: "whose workflow it is could not be found out, so nothing of it is shown", Fix: "try again when Temporal answers",
			}).Because(err)
		}
	} else if claimID, ok := strings.CutPrefix(workflowID, claim.WorkflowID("")); ok {
		got, err := e.Claims.GetClaim(ctx, &claimsv1.GetClaimRequest{ClaimId: claimID})
		if err != nil {
			return "", err
		}
		c := got.GetClaim()
		resource = identity.Resource{Type: identity.Claim, ID: c.GetClaimId(), Org: c.GetSubmitterOrg(), Payer: c.GetPayerId()}
	}
	if err := e.Authorizer.Authorize(ctx, action, resource); err != nil {
		return "", err
	}
	caller, _ := identity.FromContext(ctx)
	return e.Authorizer.Decide(caller, action, resource).Rule, nil
}

// record puts on the ledger who is about to be shown what.
func (e *endpoint) record(ctx context.Context, workflowID, rule string, which []int, in *commonpb.Payloads) error {
	caller, _ := identity.FromContext(ctx)
	sum := sha256.New()
	for _, i := range which {
		sealed := in.GetPayloads()[i].GetData()
		_, _ = sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(sealed))))
		_, _ = sum.Write(sealed)
	}
	event := &eventsv1.PayloadsOpened{
		WorkflowId: workflowID, OpenedBy: caller.Subject, Org: caller.Org, Rule: rule,
		PayloadCount: uint32(len(which)), SealedSha256: sum.Sum(nil),
	}
	payload, err := proto.Marshal(event)
	if err != nil {
		return err
	}
	const anyRevision = -2
	_, err = e.Ledger.Append(ctx, &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: workflowID, RequestId: "opened/" + e.NewID(), Actor: caller.Subject,
		Writes: []*ledgerv1.StreamWrite{{
			Stream: "opened-" + workflowID, ExpectedRevision: anyRevision,
			Events: []*ledgerv1.Event{{Type: string(proto.MessageName(event)), Payload: payload}},
		}},
	})
	if err != nil {
		return problem.New(problem.Unavailable, problem.Problem{
			RuleID: "codec.unrecorded", Message: "that the payloads are shown could not be recorded, so they are not shown", Fix: "try again when the ledger takes appends",
		}).Because(err)
	}
	return nil
}
