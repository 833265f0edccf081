package claims

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// A remittance is made in three steps, each of which may be repeated by
// anybody who finds it undone:
//
//  1. It is planned: its own stream names the claims that may be in it.
//  2. Each planned claim is marked in its own stream, which takes one
//     remittance only. Two runs over one claim are told apart there.
//  3. It is issued with those claims that bear its mark.
//
// Once planned, no claim can join; once every planned claim is marked by this
// or another remittance, none can leave. So whoever completes it issues the
// same remittance, and nothing is paid twice.

// RemittanceRecord is one remittance as its stream tells it.
type RemittanceRecord struct {
	Planned  *claimsv1.Remittance
	Issued   *claimsv1.Remittance
	Revision int64
}

// FoldRemittance reads a remittance's stream.
func FoldRemittance(events []eventstore.Recorded) RemittanceRecord {
	out := RemittanceRecord{Revision: eventstore.NoStream}
	for _, r := range events {
		switch e := r.Event.(type) {
		case *eventsv1.RemittancePlanned:
			out.Planned = e.GetRemittance()
		case *eventsv1.RemittanceIssued:
			out.Issued = proto.CloneOf(e.GetRemittance())
			out.Issued.Position = positionProto(r.Position)
		}
		out.Revision = int64(r.Revision)
	}
	return out
}

// PlanRemittances groups claims that may be remitted by payer and payee, in
// the order given, at most limit a remittance. It is deterministic: the same
// claims of the same run give the same remittances.
func PlanRemittances(ix *keys.Index, file *claimsv1.File, requestID, paymentDate string, limit int, claims []State) []*claimsv1.Remittance {
	type group struct{ payer, npi string }
	byGroup := map[group][]string{}
	for _, c := range claims {
		if _, err := Decide(c, Remit{}); err != nil {
			continue
		}
		g := group{c.Received.GetPayerId(), c.Received.GetBillingNpi()}
		byGroup[g] = append(byGroup[g], c.Received.GetClaimId())
	}
	groups := slices.SortedFunc(maps.Keys(byGroup), func(a, b group) int {
		return cmp.Or(cmp.Compare(a.payer, b.payer), cmp.Compare(a.npi, b.npi))
	})
	var out []*claimsv1.Remittance
	for _, g := range groups {
		part := 0
		for ids := range slices.Chunk(byGroup[g], limit) {
			id := remittanceID(ix, file.GetFileId(), requestID, g.payer, g.npi, part)
			out = append(out, &claimsv1.Remittance{
				RemittanceId: id, PayerId: g.payer, PayeeNpi: g.npi, ClaimIds: ids,
				PaymentDate: paymentDate, TraceNumber: traceNumber(id), FileId: file.GetFileId(), SubmitterOrg: file.GetSubmitterOrg(),
			})
			part++
		}
	}
	return out
}

// traceNumber is the remittance's TRN02: its id's first 20 letters, upper
// case, as banks carry at most 30 characters of it.
func traceNumber(id string) string {
	b := []byte(id[len("rem_"):][:20])
	for i := range b {
		if 'a' <= b[i] && b[i] <= 'z' {
			b[i] -= 'a' - 'A'
		}
	}
	return string(b)
}

// IssueRemittance decides on the last step: the planned claims that bear this
// remittance's mark, in the plan's order, and their sum.
func IssueRemittance(r RemittanceRecord, marked []State) (*eventsv1.RemittanceIssued, error) {
	if r.Planned == nil {
		return nil, notFound("remittance")
	}
	if r.Issued != nil {
		return nil, conflict("remittances.issued", "the remittance was issued before")
	}
	planned := make(map[string]bool, len(r.Planned.GetClaimIds()))
	for _, id := range r.Planned.GetClaimIds() {
		planned[id] = true
	}
	out := proto.CloneOf(r.Planned)
	out.ClaimIds, out.PaidCents = nil, 0
	for _, c := range marked {
		switch {
		case c.Remitted == nil:
			return nil, problem.New(problem.Unavailable, problem.Problem{
				RuleID: "remittances.unmarked", Message: "a planned claim bears no mark yet", Fix: "repeat the request; it goes on where it stopped",
			})
		case c.Remitted.GetRemittanceId() != out.GetRemittanceId():
		case !planned[c.Received.GetClaimId()]:
			return nil, defect("remittances.unplanned", "a claim bears the mark of a remittance that it is not planned for")
		default:
			out.ClaimIds = append(out.ClaimIds, c.Received.GetClaimId())
			out.PaidCents += c.Remitted.GetPaidCents()
		}
	}
	return &eventsv1.RemittanceIssued{Remittance: out}, nil
}
