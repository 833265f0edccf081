package claims

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
)

const aClaim = "clm_aaaaaaaaaaaaaaaaaaaaaaaaaa"

// given folds events as if they had been recorded one a commit.
func given(events ...proto.Message) State {
	s := NewState()
	for _, e := range events {
		s = Evolve(s, eventstore.Recorded{Event: e, Revision: uint64(s.Revision + 1), RequestID: "rev"})
	}
	return s
}

func receivedClaim() *eventsv1.ClaimReceived {
	return &eventsv1.ClaimReceived{ClaimId: aClaim, PayerId: payer, BillingNpi: biller, ChargeCents: 15000, FileId: "f"}
}

func decidedAs(status claimsv1.ClaimStatus, paid int64) *eventsv1.ClaimDecided {
	return &eventsv1.ClaimDecided{ClaimId: aClaim, Status: status, ChargeCents: 15000, AllowedCents: paid, PaidCents: paid}
}

const (
	paid    = claimsv1.ClaimStatus_CLAIM_STATUS_PAID
	denied  = claimsv1.ClaimStatus_CLAIM_STATUS_DENIED
	pended  = claimsv1.ClaimStatus_CLAIM_STATUS_PENDED
	unknown = claimsv1.ClaimStatus_CLAIM_STATUS_UNSPECIFIED
)

func TestDecide(t *testing.T) {
	reviewed := &eventsv1.ClaimReviewed{ClaimId: aClaim, Resolution: "approve"}
	remitted := &eventsv1.ClaimRemitted{ClaimId: aClaim, RemittanceId: "rem_1", PaidCents: 8000, DecisionRevision: 1, PayerId: payer}
	voided := &eventsv1.ClaimReversed{ClaimId: aClaim, DecisionRevision: 1, Reason: eventsv1.ReversalReason_REVERSAL_REASON_VOIDED, PaidCents: 8000}
	again := proto.CloneOf(voided)
	again.Reason = eventsv1.ReversalReason_REVERSAL_REASON_REPROCESSED
	told := func(e *eventsv1.ClaimReversed) *eventsv1.ClaimReversed {
		e = proto.CloneOf(e)
		e.Remitted = true
		return e
	}
	mark := func(paid int64, reversed, decision uint64) *eventsv1.ClaimRemitted {
		return &eventsv1.ClaimRemitted{ClaimId: aClaim, RemittanceId: "rem_2", PaidCents: paid, ReversedRevision: reversed, DecisionRevision: decision, PayerId: payer}
	}
	for _, c := range []struct {
		name  string
		given []proto.Message
		when  Command
		then  []proto.Message
		kind  problem.Kind // refused so
	}{
		{"a new claim is received and decided", nil, Receive{receivedClaim(), decidedAs(paid, 8000)}, []proto.Message{receivedClaim(), decidedAs(paid, 8000)}, ""},
		{"a claim is received once", []proto.Message{receivedClaim(), decidedAs(paid, 8000)}, Receive{receivedClaim(), decidedAs(paid, 8000)}, nil, problem.Conflict},
		{"a claim isn't received undecided", nil, Receive{receivedClaim(), decidedAs(unknown, 0)}, nil, problem.Internal},
		{"nobody is paid more than was charged", nil, Receive{receivedClaim(), decidedAs(paid, 15001)}, nil, problem.Internal},
		{"a denial pays nothing", nil, Receive{receivedClaim(), decidedAs(denied, 1)}, nil, problem.Internal},
		{"a pended claim pays nothing yet", nil, Receive{receivedClaim(), decidedAs(pended, 1)}, nil, problem.Internal},
		{"a pended claim is reviewed", []proto.Message{receivedClaim(), decidedAs(pended, 0)}, Review{reviewed, decidedAs(paid, 8000)}, []proto.Message{reviewed, decidedAs(paid, 8000)}, ""},
		{"a decided claim isn't reviewed", []proto.Message{receivedClaim(), decidedAs(denied, 0)}, Review{reviewed, decidedAs(paid, 8000)}, nil, problem.Conflict},
		{"nothing is reviewed that isn't there", nil, Review{reviewed, decidedAs(paid, 8000)}, nil, problem.NotFound},
		{"a paid claim is remitted with what was paid", []proto.Message{receivedClaim(), decidedAs(paid, 8000)}, Remit{RemittanceID: "rem_1"}, []proto.Message{remitted}, ""},
		{"a denied claim is remitted with nothing", []proto.Message{receivedClaim(), decidedAs(denied, 0)}, Remit{RemittanceID: "rem_1"}, []proto.Message{&eventsv1.ClaimRemitted{ClaimId: aClaim, RemittanceId: "rem_1", DecisionRevision: 1, PayerId: payer}}, ""},
		{"a pended claim isn't remitted", []proto.Message{receivedClaim(), decidedAs(pended, 0)}, Remit{RemittanceID: "rem_1"}, nil, problem.Conflict},
		{"a claim is remitted once", []proto.Message{receivedClaim(), decidedAs(paid, 8000), remitted}, Remit{RemittanceID: "rem_2"}, nil, problem.Conflict},
		{"a paid claim is reversed", []proto.Message{receivedClaim(), decidedAs(paid, 8000)}, Reverse{voided}, []proto.Message{voided}, ""},
		{"a reversal says whether a remittance told the decision", []proto.Message{receivedClaim(), decidedAs(paid, 8000), remitted}, Reverse{voided}, nil, problem.Internal},
		{"a reversal names the decision that stands", []proto.Message{receivedClaim(), decidedAs(denied, 0), again, decidedAs(paid, 8000)}, Reverse{voided}, nil, problem.Internal},
		{"a claim is reversed once", []proto.Message{receivedClaim(), decidedAs(paid, 8000), voided}, Reverse{voided}, nil, problem.Conflict},
		{"a pended claim has nothing to reverse", []proto.Message{receivedClaim(), decidedAs(pended, 0)}, Reverse{voided}, nil, problem.Conflict},
		{"nothing is reversed that isn't there", nil, Reverse{voided}, nil, problem.NotFound},
		{"a decision is made again", []proto.Message{receivedClaim(), decidedAs(paid, 8000)}, Redecide{again, decidedAs(denied, 0)}, []proto.Message{again, decidedAs(denied, 0)}, ""},
		{"a decision that stands isn't pended", []proto.Message{receivedClaim(), decidedAs(paid, 8000)}, Redecide{again, decidedAs(pended, 0)}, nil, problem.Internal},
		{"a decision that stands is taken back before another", []proto.Message{receivedClaim(), decidedAs(paid, 8000)}, Redecide{nil, decidedAs(denied, 0)}, nil, problem.Conflict},
		{"a pended claim is decided without a reversal", []proto.Message{receivedClaim(), decidedAs(pended, 0)}, Redecide{nil, decidedAs(paid, 8000)}, []proto.Message{decidedAs(paid, 8000)}, ""},
		{"a voided claim isn't decided again", []proto.Message{receivedClaim(), decidedAs(paid, 8000), voided}, Redecide{again, decidedAs(paid, 1)}, nil, problem.Conflict},
		{"what was told and voided is told to be reversed", []proto.Message{receivedClaim(), decidedAs(paid, 8000), remitted, told(voided)}, Remit{RemittanceID: "rem_2"}, []proto.Message{mark(-8000, 1, 0)}, ""},
		{"what was voided before it was told is never told", []proto.Message{receivedClaim(), decidedAs(paid, 8000), voided}, Remit{RemittanceID: "rem_2"}, nil, problem.Conflict},
		{"what was told and decided again is told as a pair", []proto.Message{receivedClaim(), decidedAs(paid, 8000), remitted, told(again), decidedAs(paid, 7000)}, Remit{RemittanceID: "rem_2"}, []proto.Message{mark(-1000, 1, 4)}, ""},
		{"of two new decisions only the last is told", []proto.Message{receivedClaim(), decidedAs(paid, 8000), again, decidedAs(paid, 7000)}, Remit{RemittanceID: "rem_2"}, []proto.Message{mark(7000, 0, 3)}, ""},
		{"a pair is told once", []proto.Message{receivedClaim(), decidedAs(paid, 8000), remitted, told(again), decidedAs(paid, 7000), mark(-1000, 1, 4)}, Remit{RemittanceID: "rem_3"}, nil, problem.Conflict},
		{"a reversal is told once", []proto.Message{receivedClaim(), decidedAs(paid, 8000), remitted, told(voided), mark(-8000, 1, 0)}, Remit{RemittanceID: "rem_3"}, nil, problem.Conflict},
		{"a remitted claim isn't reviewed", []proto.Message{receivedClaim(), decidedAs(paid, 8000), remitted}, Review{reviewed, decidedAs(paid, 1)}, nil, problem.Conflict},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decide(given(c.given...), c.when)
			if c.kind != "" {
				require.True(t, problem.Is(err, c.kind), "%v", err)
				require.Empty(t, got)
				return
			}
			require.NoError(t, err)
			require.Len(t, got, len(c.then))
			for i := range got {
				require.True(t, proto.Equal(c.then[i], got[i]), "%v", got[i])
			}
		})
	}
}

// Whatever is asked of a claim in whatever order: it is received once, a final
// decision gives way only to its reversal, nothing follows a void, and what all
// remittances together have paid is what the last decision told pays.
func TestNoOrderOfCommandsPaysTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, revision := NewState(), uint64(0)
		received, paidOut := 0, int64(0)
		statuses := rapid.SampledFrom([]claimsv1.ClaimStatus{paid, denied, pended})
		reversal := func(reason eventsv1.ReversalReason) *eventsv1.ClaimReversed {
			return &eventsv1.ClaimReversed{ClaimId: aClaim, Reason: reason, DecisionRevision: state.DecidedRevision, PaidCents: state.Decided.GetPaidCents(), Remitted: state.Told != nil}
		}
		for range rapid.IntRange(1, 16).Draw(t, "commands") {
			status := statuses.Draw(t, "status")
			amount := int64(0)
			if status == paid {
				amount = rapid.Int64Range(0, 15000).Draw(t, "paid")
			}
			command := rapid.SampledFrom([]Command{
				Receive{receivedClaim(), decidedAs(status, amount)},
				Review{&eventsv1.ClaimReviewed{ClaimId: aClaim}, decidedAs(status, amount)},
				Redecide{reversal(eventsv1.ReversalReason_REVERSAL_REASON_REPROCESSED), decidedAs(status, amount)},
				Redecide{nil, decidedAs(status, amount)},
				Reverse{reversal(eventsv1.ReversalReason_REVERSAL_REASON_VOIDED)},
				Remit{RemittanceID: fmt.Sprint("rem_", revision)},
				VoidTelling{RemittanceID: rapid.SampledFrom(append(slices.Sorted(maps.Keys(state.marks)), "rem_none")).Draw(t, "void")},
			}).Draw(t, "command")
			before := state
			events, err := Decide(state, command)
			if err != nil {
				continue
			}
			for _, e := range events {
				switch e := e.(type) {
				case *eventsv1.ClaimReceived:
					received++
				case *eventsv1.ClaimDecided:
					_, reversed := events[0].(*eventsv1.ClaimReversed)
					require.True(t, reversed || !Final(before.Status()), "decided again without a reversal")
				case *eventsv1.ClaimRemitted:
					paidOut += e.GetPaidCents()
				case *eventsv1.ClaimRemittanceVoided:
					paidOut -= state.marks[e.GetRemittanceId()].GetPaidCents()
				}
				settles := false
				switch e.(type) {
				case *eventsv1.ClaimRemitted, *eventsv1.ClaimRemittanceVoided:
					settles = true
				default:
					require.Nil(t, before.Reversed, "%T after the end", e)
				}
				state = Evolve(state, eventstore.Recorded{Event: e, Revision: revision})
				revision++
				if settles {
					again := int64(0)
					for _, telling := range state.toTellAgain() {
						again += telling.mark.GetPaidCents()
					}
					require.Equal(t, state.Told.GetPaidCents(), paidOut+again, "what was told and holds, and what is to be told again")
				}
			}
		}
		require.LessOrEqual(t, received, 1)
		// when what is left to tell is told, all payments are what stands
		for more := true; more; revision++ {
			events, err := Decide(state, Remit{RemittanceID: fmt.Sprint("rem_", revision)})
			if err != nil {
				break
			}
			e := events[0].(*eventsv1.ClaimRemitted)
			paidOut += e.GetPaidCents()
			more = e.GetMore()
			state = Evolve(state, eventstore.Recorded{Event: e, Revision: revision})
		}
		_, err := Decide(state, Remit{RemittanceID: "rem_end"})
		require.Error(t, err, "nothing is left to tell")
		standing := int64(0)
		if state.decidedFinally() {
			standing = state.Decided.GetPaidCents()
		}
		require.Equal(t, standing, paidOut)
	})
}

func TestAClaimsIdCarriesItsFamilysRoute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ix := keys.NewIndex([32]byte{1})
		text := rapid.StringN(1, 20, 80)
		subscriber := ix.Subscriber("p", text.Draw(t, "member"))
		id := claimID(submissionID(ix, "org", text.Draw(t, "request"), "", 0), subscriber)
		require.Regexp(t, "^clm_[a-z2-7]{26}$", id)
		require.Equal(t, familyKey(subscriber), claimKey(id))
	})
}

func TestTheRowOfTheListsIsTheClaimOfTheStream(t *testing.T) {
	pendedFirst := decidedAs(pended, 0)
	pendedFirst.PendReasons = []*claimsv1.PendReason{{RuleId: "authorization.document", Carc: carcDocumentNeeded}}
	events := []proto.Message{
		receivedClaim(), pendedFirst, &eventsv1.ClaimReviewed{ClaimId: aClaim}, decidedAs(paid, 8000),
		&eventsv1.ClaimRemitted{ClaimId: aClaim, RemittanceId: "rem_1", PaidCents: 8000, DecisionRevision: 3},
		&eventsv1.ClaimReversed{ClaimId: aClaim, Reason: eventsv1.ReversalReason_REVERSAL_REASON_REPROCESSED, DecisionRevision: 3, Remitted: true}, decidedAs(paid, 7000),
		&eventsv1.ClaimRemitted{ClaimId: aClaim, RemittanceId: "rem_2", PaidCents: -1000, ReversedRevision: 3, DecisionRevision: 6},
		&eventsv1.ClaimReversed{ClaimId: aClaim, Reason: eventsv1.ReversalReason_REVERSAL_REASON_VOIDED, DecisionRevision: 6, Remitted: true},
		&eventsv1.ClaimRemitted{ClaimId: aClaim, RemittanceId: "rem_3", PaidCents: -7000, ReversedRevision: 6},
		&eventsv1.ClaimRemittanceVoided{ClaimId: aClaim, RemittanceId: "rem_1", Superseded: true},
		&eventsv1.ClaimRemittanceVoided{ClaimId: aClaim, RemittanceId: "rem_3"},
	}
	actors := []string{"payer", "provider", "provider", "payer", "none", "payer", "payer", "none", "none", "none", "none", "none"}
	fields := map[string]string{}
	for n, e := range events {
		at := eventstore.Recorded{Event: e, Revision: uint64(n), Position: eventstore.Position{Log: logName, Index: uint64(n)}}
		var field string
		var message proto.Message
		switch e := e.(type) {
		case *eventsv1.ClaimReceived:
			field, message = "r", summaryOfReceived(e)
		case *eventsv1.ClaimDecided:
			field, message = "d", summaryOfDecided(e, at.Position, at.Revision)
		case *eventsv1.ClaimRemitted:
			field, message = "m", summaryOfRemitted(e, at.Revision)
		case *eventsv1.ClaimRemittanceVoided:
			if e.GetSuperseded() {
				continue
			}
			field, message = "m", summaryOfRemitted(nil, at.Revision)
		case *eventsv1.ClaimReversed:
			ops, _, err := apply(nil, at)
			require.NoError(t, err)
			require.Equal(t, views.HDel(rowsKey(kindClaims), rowField(aClaim, "m")), ops[0])
			delete(fields, "m")
			if !endsClaim(e) {
				continue
			}
			b, err := encode(summaryOfReversed(at.Revision))
			require.NoError(t, err)
			fields["v"] = string(b)
			require.Equal(t, views.HSet(rowsKey(kindClaims), rowField(aClaim, "v"), fields["v"]), ops[1])
			continue
		default:
			continue
		}
		b, err := encode(message)
		require.NoError(t, err)
		fields[field] = string(b)
		ops, claim, err := apply(nil, at)
		require.NoError(t, err)
		require.Equal(t, aClaim, claim)
		require.Equal(t, views.HSet(rowsKey(kindClaims), rowField(aClaim, field), fields[field]), ops[0])
	}
	row, err := claimRow(fields)
	require.NoError(t, err)
	state := NewState()
	for n, e := range events {
		state = Evolve(state, eventstore.Recorded{Event: e, Revision: uint64(n), Position: eventstore.Position{Log: logName, Index: uint64(n)}})
		require.Equal(t, actors[n], state.Summary().GetNextActor(), "after %T", e)
	}
	require.True(t, proto.Equal(state.Summary(), row), "%v and %v", state.Summary(), row)
}
