package embedded_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/follower"
	"github.com/probity-health/probity/workflows/hook"
	"github.com/probity-health/probity/workflows/worker"
)

// history is a workflow's as the server holds it: nothing opened.
func history(t *testing.T, ctx context.Context, c client.Client, workflowID string) *historypb.History {
	t.Helper()
	var h historypb.History
	for events := c.GetWorkflowHistory(ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		event, err := events.Next()
		require.NoError(t, err)
		h.Events = append(h.Events, event)
	}
	return &h
}

// each calls f with every message inside m.
func each(m protoreflect.Message, f func(protoreflect.Message)) {
	f(m)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { each(v.Message(), f); return true })
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				each(v.List().Get(i).Message(), f)
			}
		default:
			each(v.Message(), f)
		}
		return true
	})
}

func TestAHistoryTellsCodesOnly(t *testing.T) {
	// Given a claim's workflow, as the follower starts it from the log, that
	// meets a refused review and one that is accepted.
	ctx := testContext(t)
	c := dialSealed(t, startTemporal(t, t.TempDir()))
	i := newInstallation(0)
	startWorker(t, c, i)
	event, err := proto.Marshal(&eventsv1.ClaimDecided{
		ClaimId: claimID, Status: claimsv1.ClaimStatus_CLAIM_STATUS_PENDED, PromptPayDueDate: "2099-12-21", PayerId: "payer", SubmitterOrg: "MARKER-ORG",
	})
	require.NoError(t, err)
	var asks []hook.Ask
	for _, fact := range hook.Of(worker.Catalog(worker.Deps{}), follower.Log) {
		if fact.Event == "probity.events.v1.ClaimDecided" {
			asks, err = fact.Asks(event, hook.Place{Stream: "claim-" + claimID, Revision: 1})
			require.NoError(t, err)
		}
	}
	start, ok := asks[0].(hook.Start)
	require.True(t, ok)
	require.NoError(t, follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}.Start(ctx, start))
	svc := newService(t, c, i)
	reviewer := identity.WithPrincipal(ctx, identity.Principal{Subject: "MARKER-PERSON", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"*"}})
	for _, id := range []string{"refused", "MARKER-REQUEST"} {
		_, err := svc.ReviewClaim(reviewer, &workflowsv1.ReviewClaimRequest{ClaimId: claimID, RequestId: id, Resolution: "deny", Reason: "MARKER-REASON"})
		require.Equal(t, id == "refused", err != nil, "%v", err)
	}
	require.NoError(t, c.GetWorkflow(ctx, claim.WorkflowID(claimID), "").Get(ctx, nil))

	// Then of arguments, results and errors its history holds sealed bytes only.
	h := history(t, ctx, c, claim.WorkflowID(claimID))
	attributes := h.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes()
	sealed, failures := 0, 0
	searchable := map[*commonpb.Payload]bool{}
	for _, e := range h.GetEvents() {
		each(e.ProtoReflect(), func(m protoreflect.Message) {
			if s, ok := m.Interface().(*commonpb.SearchAttributes); ok {
				for _, p := range s.GetIndexedFields() {
					searchable[p] = true
				}
			}
		})
	}
	for _, e := range h.GetEvents() {
		each(e.ProtoReflect(), func(m protoreflect.Message) {
			switch m := m.Interface().(type) {
			case *commonpb.Header:
				clear(m.GetFields()) // the trace's ids, in clear
			case *commonpb.Payload:
				if !searchable[m] {
					require.Equal(t, "claim:"+claimID, worker.WorkflowOf(m), "a payload in clear: %s", m)
					sealed++
				}
			case *failurepb.Failure:
				failures++
				require.Equal(t, "Encoded failure", m.GetMessage())
				require.Empty(t, m.GetStackTrace())
				require.NotNil(t, m.GetEncodedAttributes())
			}
		})
	}
	require.NotZero(t, sealed)
	require.NotZero(t, failures, "the refused review is a failure")
	raw, err := proto.Marshal(h)
	require.NoError(t, err)
	for _, secret := range []string{"MARKER-REASON", "MARKER-PERSON", "MARKER-ORG", "not now", "MARKER-FIX"} {
		require.False(t, bytes.Contains(raw, []byte(secret)), "%s is in clear in the history", secret)
	}

	// And what can be searched for is a payer and a day; a memo there is none.
	require.Empty(t, attributes.GetMemo().GetFields())
	found := map[string]string{}
	for name, p := range attributes.GetSearchAttributes().GetIndexedFields() {
		found[name] = string(p.GetData())
	}
	require.Equal(t, map[string]string{"ProbityPayer": `"payer"`, "ProbityDueDate": `"2099-12-21T00:00:00Z"`}, found)
}
