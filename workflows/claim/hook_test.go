package claim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/hook"
)

// What each fact of a claim's stream asks of the workflows.
func TestFactsAskForTheirWorkflows(t *testing.T) {
	catalog := []hook.Workflow{claim.Hook(&claim.Activities{}), claim.AppealHook(&claim.Activities{})}
	asked := func(revision uint64, event proto.Message) (out []hook.Ask) {
		payload, err := proto.Marshal(event)
		require.NoError(t, err)
		for _, fact := range hook.Of(catalog, "claims") {
			if fact.Event == string(proto.MessageName(event)) {
				asks, err := fact.Asks(payload, hook.Place{Stream: "claim-" + claimID, Revision: revision})
				require.NoError(t, err)
				out = append(out, asks...)
			}
		}
		return out
	}
	dated := claim.Start(claimID, "2026-12-21")
	dated.Attributes = hook.Attributes("KEYSTONE", "2026-12-21")
	waits := time.Date(2026, 12, 16, 0, 0, 0, 0, time.UTC)
	first := &claimsv1.Deadline{Kind: "escalation", Time: timestamppb.New(waits)}
	knowing := dated
	knowing.Late, knowing.Idle = dated.Input, waits
	knowing.Input = claim.Input{ClaimID: claimID, DueDate: "2026-12-21", Case: true, First: claim.Deadline{Kind: "escalation", Time: waits}}
	appeal := claim.StartAppeal(appealID, claimID)
	appeal.Attributes = hook.Attributes("KEYSTONE", "2026-12-16")
	pended, paid := claimsv1.ClaimStatus_CLAIM_STATUS_PENDED, claimsv1.ClaimStatus_CLAIM_STATUS_PAID
	byPerson, byItself := &claimsv1.InformationRequest{RequestedBy: "adj-1"}, &claimsv1.InformationRequest{}
	for name, c := range map[string]struct {
		revision uint64
		event    proto.Message
		asks     []hook.Ask
	}{
		"a claim pends":                         {1, &eventsv1.ClaimDecided{ClaimId: claimID, Status: pended, PayerId: "KEYSTONE", PromptPayDueDate: "2026-12-21"}, []hook.Ask{dated}},
		"a claim pends and nothing is due":      {1, &eventsv1.ClaimDecided{ClaimId: claimID, Status: pended, PayerId: "KEYSTONE", PromptPayDueDate: "2026-12-21", FirstDeadline: first}, []hook.Ask{knowing}},
		"a claim pends again":                   {4, &eventsv1.ClaimDecided{ClaimId: claimID, Status: pended, PayerId: "KEYSTONE", PromptPayDueDate: "2026-12-21"}, []hook.Ask{dated, claim.Changed(claimID)}},
		"a clean claim is paid":                 {1, &eventsv1.ClaimDecided{ClaimId: claimID, Status: paid}, nil},
		"a pended claim is paid":                {3, &eventsv1.ClaimDecided{ClaimId: claimID, Status: paid}, []hook.Ask{claim.Decided(claimID)}},
		"a task is taken":                       {2, &eventsv1.TaskClaimed{ClaimId: claimID}, []hook.Ask{claim.Changed(claimID)}},
		"a person asks":                         {2, &eventsv1.InformationRequested{ClaimId: claimID, Request: byPerson}, []hook.Ask{claim.Changed(claimID)}},
		"the workflow had it asked":             {2, &eventsv1.InformationRequested{ClaimId: claimID, Request: byItself}, nil},
		"an answer comes":                       {3, &eventsv1.InformationReceived{ClaimId: claimID}, []hook.Ask{claim.Changed(claimID)}},
		"a reminder was the workflow's":         {3, &eventsv1.InformationReminded{ClaimId: claimID}, nil},
		"an appeal is filed":                    {4, &eventsv1.AppealFiled{ClaimId: claimID, PayerId: "KEYSTONE", Appeal: &claimsv1.Appeal{AppealId: appealID, DueTime: first.Time}}, []hook.Ask{appeal}},
		"an appeal is decided":                  {5, &eventsv1.AppealDecided{ClaimId: claimID, AppealId: appealID}, []hook.Ask{claim.AppealDecided(appealID)}},
		"that it is overdue was the workflow's": {5, &eventsv1.AppealOverdue{ClaimId: claimID, AppealId: appealID}, nil},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.asks, asked(c.revision, c.event)) })
	}
}

// What can't be read stops the follower; that most decisions aren't decoded
// must not hide it.
func TestADecisionThatCantBeReadIsNoCleanOne(t *testing.T) {
	var fact hook.Fact
	for _, f := range hook.Of([]hook.Workflow{claim.Hook(&claim.Activities{})}, "claims") {
		if f.Event == string((&eventsv1.ClaimDecided{}).ProtoReflect().Descriptor().FullName()) {
			fact = f
		}
	}
	whole, err := proto.Marshal(&eventsv1.ClaimDecided{ClaimId: claimID, Status: claimsv1.ClaimStatus_CLAIM_STATUS_PAID, PayerId: "KEYSTONE", DecidedTime: timestamppb.New(time.Unix(1, 0))})
	require.NoError(t, err)
	asks, err := fact.Asks(whole, hook.Place{Revision: 1})
	require.NoError(t, err)
	require.Empty(t, asks)
	for n := 1; n < len(whole); n++ {
		var part eventsv1.ClaimDecided
		if proto.Unmarshal(whole[:n], &part) != nil {
			_, err := fact.Asks(whole[:n], hook.Place{Revision: 1})
			require.Error(t, err, "cut after %d bytes", n)
		}
	}
}
