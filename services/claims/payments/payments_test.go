package payments_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/payments"
	"github.com/probity-health/probity/services/problem"
)

var noon = timestamppb.New(time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC))

func remittance() *claimsv1.Remittance {
	return &claimsv1.Remittance{RemittanceId: "rem_a", PayerId: "ACME", PayeeNpi: "1600100014", PaidCents: 8500}
}

// given is a payment to which commands happened, all of which were answered.
func given(t require.TestingT, commands ...payments.Command) payments.State {
	intended, err := payments.Intend(remittance(), "pay_a", "", noon)
	require.NoError(t, err)
	s := payments.Evolve(payments.State{}, intended)
	for _, c := range commands {
		events, err := s.Decide(c, noon)
		require.NoError(t, err)
		s = grown(s, events)
	}
	return s
}

func grown(s payments.State, events []proto.Message) payments.State {
	for _, e := range events {
		s = payments.Evolve(s, e)
	}
	return s
}

// tell is what followed: the events' names, or the refusal's rule.
func tell(events []proto.Message, err error) string {
	if err != nil {
		return string(problem.As(err).Kind) + " " + problem.As(err).Problems[0].RuleID
	}
	out := ""
	for i, e := range events {
		if i > 0 {
			out += ", "
		}
		out += string(e.ProtoReflect().Descriptor().Name())
	}
	return out
}

var (
	sent      = payments.Send{Reference: "ach-1"}
	made      = payments.Send{Reference: "ach-1", Confirmed: true}
	confirmed = payments.Confirm{Reference: "ach-1"}
	withdrawn = payments.Fail{Reason: "account-closed", Withdrawn: true}
	reported  = payments.Fail{Reason: "not-arrived", By: "ann"}
	returned  = payments.Fail{Reason: "returned", Returned: true, By: "ann"}
	retry     = payments.Resolve{Resolution: claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY, Who: "bob"}
	writeOff  = payments.Resolve{Resolution: claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF, Reference: "settled-7", Who: "bob"}
	advance   = payments.Advance{}
	bySame    = payments.Resolve{Resolution: claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY, Who: "ann"}
)

func TestEachCommandInEachState(t *testing.T) {
	list := func(c ...payments.Command) []payments.Command { return c }
	for _, c := range []struct {
		name  string
		given []payments.Command
		when  payments.Command
		then  string
	}{
		{"it is handed over", nil, sent, "PaymentSent"},
		{"it is made as it is handed over", nil, made, "PaymentSent, PaymentConfirmed"},
		{"handing over is told twice", list(sent), sent, ""},
		{"its making is told later", list(sent), made, "PaymentConfirmed"},
		{"it is confirmed", list(sent), confirmed, "PaymentConfirmed"},
		{"it is confirmed before anybody has it", nil, confirmed, "conflict payments.not-sent"},
		{"it is confirmed twice", list(made), confirmed, ""},
		{"the port withdraws it", nil, withdrawn, "PaymentFailed"},
		{"a person can't say that of what may still go out", nil, reported, "conflict payments.not-withdrawn"},
		{"a person says that it never arrived", list(sent), reported, "PaymentFailed"},
		{"one that was made did not fail", list(made), reported, "conflict payments.made"},
		{"but its money may come back", list(made), returned, "PaymentFailed"},
		{"what failed is not handed over", list(withdrawn), sent, "conflict payments.failed"},
		{"nor confirmed", list(sent, reported), confirmed, "conflict payments.failed"},
		{"it fails once", list(sent, reported), reported, ""},
		{"a person lets it be paid after all", list(withdrawn), retry, "PaymentResolved"},
		{"twice the same is once", list(withdrawn, retry), retry, ""},
		{"but not another", list(withdrawn, retry), writeOff, "conflict payments.task.none"},
		{"who reported the failure doesn't decide", list(sent, reported), bySame, "forbidden payments.task.same-person"},
		{"nothing is due of it as it fails", list(sent, reported), advance, ""},
		{"nor of one that never failed", list(sent), advance, ""},
		{"nothing waits for a person before it failed", list(sent), retry, "conflict payments.task.none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.then, tell(given(t, c.given...).Decide(c.when, noon)))
		})
	}
}

func TestWhatIsNotIntended(t *testing.T) {
	for rule, change := range map[string]func(*claimsv1.Remittance){
		"internal payments.nothing": func(m *claimsv1.Remittance) { m.PaidCents = 0 },
		"conflict payments.voided":  func(m *claimsv1.Remittance) { m.Voided = true },
	} {
		m := remittance()
		change(m)
		e, err := payments.Intend(m, "pay_a", "", noon)
		require.Nil(t, e)
		require.Equal(t, rule, tell(nil, err))
	}
}

// Whatever is said, in whatever order: the money is made at most once, the
// remittance is to be voided only after a failure that a person resolved, a
// refusal changes nothing, and a state that was taken stays as it was.
func TestWhateverIsSaid(t *testing.T) {
	all := []payments.Command{
		sent, made, confirmed, withdrawn, reported, returned, retry, writeOff, bySame,
		advance, payments.Assign{Assignee: "bob", Who: "bob"}, payments.Assign{Who: "bob"}, payments.ReleasePayee{Who: "bob"},
	}
	rapid.Check(t, func(t *rapid.T) {
		s := given(t)
		confirmations, failures, resolutions := 0, 0, 0
		for range rapid.IntRange(0, 12).Draw(t, "commands") {
			c := rapid.SampledFrom(all).Draw(t, "command")
			before, was := s, fmt.Sprint(s.Payment)
			events, err := s.Decide(c, noon)
			if err != nil {
				require.Empty(t, events)
			}
			s = grown(s, events)
			require.Equal(t, was, fmt.Sprint(before.Payment))
			for _, e := range events {
				switch e.(type) {
				case *eventsv1.PaymentConfirmed:
					confirmations++
				case *eventsv1.PaymentFailed:
					failures++
				case *eventsv1.PaymentResolved:
					resolutions++
				}
			}
			require.LessOrEqual(t, confirmations, 1)
			require.LessOrEqual(t, failures, 1)
			require.LessOrEqual(t, resolutions, failures)
			if s.Voids() {
				require.Equal(t, 1, resolutions)
				require.NotEqual(t, claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF, s.Payment.GetResolution())
			}
		}
	})
}
