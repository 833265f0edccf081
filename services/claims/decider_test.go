package claims

import (
	"encoding/base64"
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
	remitted := &eventsv1.ClaimRemitted{ClaimId: aClaim, RemittanceId: "rem_1", PaidCents: 8000}
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
		{"a paid claim is remitted with what was paid", []proto.Message{receivedClaim(), decidedAs(paid, 8000)}, Remit{"rem_1"}, []proto.Message{remitted}, ""},
		{"a denied claim is remitted with nothing", []proto.Message{receivedClaim(), decidedAs(denied, 0)}, Remit{"rem_1"}, []proto.Message{&eventsv1.ClaimRemitted{ClaimId: aClaim, RemittanceId: "rem_1"}}, ""},
		{"a pended claim isn't remitted", []proto.Message{receivedClaim(), decidedAs(pended, 0)}, Remit{"rem_1"}, nil, problem.Conflict},
		{"a claim is remitted once", []proto.Message{receivedClaim(), decidedAs(paid, 8000), remitted}, Remit{"rem_2"}, nil, problem.Conflict},
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

// Whatever is asked of a claim in whatever order: it is received once, paid
// once, remitted once with what was last decided, and never leaves a final state.
func TestNoOrderOfCommandsPaysTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, revision := NewState(), uint64(0)
		received, remitted, finals := 0, 0, 0
		statuses := rapid.SampledFrom([]claimsv1.ClaimStatus{paid, denied, pended})
		for range rapid.IntRange(1, 12).Draw(t, "commands") {
			status := statuses.Draw(t, "status")
			amount := int64(0)
			if status == paid {
				amount = rapid.Int64Range(0, 15000).Draw(t, "paid")
			}
			command := rapid.SampledFrom([]Command{
				Receive{receivedClaim(), decidedAs(status, amount)},
				Review{&eventsv1.ClaimReviewed{ClaimId: aClaim}, decidedAs(status, amount)},
				Remit{RemittanceID: rapid.SampledFrom([]string{"rem_1", "rem_2"}).Draw(t, "remittance")},
			}).Draw(t, "command")
			before := state.Status()
			events, err := Decide(state, command)
			if err != nil {
				continue
			}
			for _, e := range events {
				switch e := e.(type) {
				case *eventsv1.ClaimReceived:
					received++
				case *eventsv1.ClaimDecided:
					require.False(t, Final(before), "decided again after a final decision")
					if Final(e.GetStatus()) {
						finals++
					}
				case *eventsv1.ClaimRemitted:
					remitted++
					require.True(t, Final(before))
					require.Equal(t, state.Decided.GetPaidCents(), e.GetPaidCents())
				}
				state = Evolve(state, eventstore.Recorded{Event: e, Revision: revision})
				revision++
			}
		}
		require.LessOrEqual(t, received, 1)
		require.LessOrEqual(t, finals, 1)
		require.LessOrEqual(t, remitted, 1)
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
		&eventsv1.ClaimRemitted{ClaimId: aClaim, RemittanceId: "rem_1", PaidCents: 8000},
	}
	actors := []string{"payer", "provider", "provider", "payer", "none"}
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
		default:
			continue
		}
		b, err := encode(message)
		require.NoError(t, err)
		fields[field] = base64.RawStdEncoding.EncodeToString(b)
		ops, claim, err := apply(at)
		require.NoError(t, err)
		require.Equal(t, aClaim, claim)
		require.Equal(t, views.HSet(rowKey(kindClaims, aClaim), field, fields[field]), ops[0])
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
