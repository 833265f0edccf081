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
)

// A remittance is made in four steps, each of which may be repeated by
// anybody who finds it undone:
//
//  1. It is planned: its own stream names what is to be told of which claims.
//  2. Each planned claim is marked in its own stream with what is told of it.
//     A claim of which something else is to be told by then, or that another
//     remittance took, is left out; that can't come back, since a claim's
//     revisions only grow.
//  3. What its claims come to is posted to the account of payer and payee,
//     once: an earlier balance is brought in, a negative sum is carried.
//  4. It is issued with the claims that bear its mark and the account's figures.
//
// Once planned, no claim can join; once every planned claim is marked or has
// moved on, none can leave; once posted, the figures stand. So whoever
// completes it issues the same remittance, and nothing is paid twice, whether
// it was planned for a file or for a payment cycle.

// RemittanceRecord is one remittance as its stream tells it.
type RemittanceRecord struct {
	Planned  *claimsv1.Remittance
	Claims   []*eventsv1.PlannedClaim
	Issued   *claimsv1.Remittance // says when it is void
	Revision int64
}

// FoldRemittance reads a remittance's stream.
func FoldRemittance(events []eventstore.Recorded) RemittanceRecord {
	out := RemittanceRecord{Revision: eventstore.NoStream}
	for _, r := range events {
		switch e := r.Event.(type) {
		case *eventsv1.RemittancePlanned:
			out.Planned, out.Claims = e.GetRemittance(), e.GetClaims()
		case *eventsv1.RemittanceIssued:
			out.Issued = proto.CloneOf(e.GetRemittance())
			out.Issued.Position = positionProto(r.Position)
		case *eventsv1.RemittanceVoided:
			out.Issued.Voided = true
		}
		out.Revision = int64(r.Revision)
	}
	return out
}

// scope is what remittances are made for: a file's claims, or a payer's in a
// payment cycle.
type scope struct {
	name string // in the remittances' ids: the file's id or the cycle's payer
	file string // empty for a cycle
	run  string // keyed hash of the idempotency key
	date string // of the payment order, ISO 8601
}

// payee is whom a remittance is for, and of whose claims: one remittance
// holds claims of one payer, payee and sender.
type payee struct{ payer, npi, org string }

// tellable is as much of a claim as a plan asks for: of a file of any size
// all of it is in memory at once.
type tellable struct {
	id, original string
	payee        payee
	planned      *eventsv1.PlannedClaim // nil: there is nothing to tell
}

func tellableOf(c State) tellable {
	t := tellable{
		id: c.Received.GetClaimId(), original: c.original(),
		payee: payee{c.Received.GetPayerId(), c.Received.GetBillingNpi(), c.Received.GetSubmitterOrg()},
	}
	events, err := Decide(c, Remit{})
	if err != nil {
		return t
	}
	if e, ok := events[0].(*eventsv1.ClaimRemitted); ok {
		t.planned = &eventsv1.PlannedClaim{
			ClaimId: t.id, ReversedRevision: e.GetReversedRevision(), DecisionRevision: e.GetDecisionRevision(), Revision: uint64(c.Revision),
		}
	}
	return t
}

// planRemittances groups what there is to tell of claims by payer, payee and
// sender, in the order given, at most limit claims a remittance. A claim that
// was replaced or voided stands before the one that did it, and the two are
// not parted. It is deterministic: the same claims of the same run give the
// same remittances.
func planRemittances(ix *keys.Index, sc scope, limit int, claims []tellable) []*eventsv1.RemittancePlanned {
	byPayee := map[payee][][]*eventsv1.PlannedClaim{}
	for _, bundle := range bundles(claims) {
		var planned []*eventsv1.PlannedClaim
		for _, c := range bundle {
			if c.planned != nil {
				planned = append(planned, c.planned)
			}
		}
		if len(planned) > 0 {
			byPayee[bundle[0].payee] = append(byPayee[bundle[0].payee], planned)
		}
	}
	payees := slices.SortedFunc(maps.Keys(byPayee), func(a, b payee) int {
		return cmp.Or(cmp.Compare(a.payer, b.payer), cmp.Compare(a.npi, b.npi), cmp.Compare(a.org, b.org))
	})
	var out []*eventsv1.RemittancePlanned
	for _, to := range payees {
		for part, planned := range chunks(byPayee[to], limit) {
			id := remittanceID(ix, sc.name, sc.run, to.payer, to.npi, to.org, part)
			e := &eventsv1.RemittancePlanned{Claims: planned, Remittance: &claimsv1.Remittance{
				RemittanceId: id, PayerId: to.payer, PayeeNpi: to.npi, PaymentDate: sc.date, TraceNumber: traceNumber(id), FileId: sc.file, SubmitterOrg: to.org,
			}}
			for _, c := range planned {
				e.Remittance.ClaimIds = append(e.Remittance.ClaimIds, c.GetClaimId())
			}
			out = append(out, e)
		}
	}
	return out
}

// bundles puts each claim behind those that it took the place of, where they
// are among the claims too.
func bundles(claims []tellable) [][]tellable {
	at := make(map[string]int, len(claims))
	for i, c := range claims {
		at[c.id] = i
	}
	taken := make([]bool, len(claims))
	var out [][]tellable
	for i := range claims {
		var chain []tellable
		for j := i; !taken[j]; {
			taken[j] = true
			chain = append(chain, claims[j])
			before, ok := at[claims[j].original]
			if !ok {
				break
			}
			j = before
		}
		if len(chain) > 0 {
			slices.Reverse(chain)
			out = append(out, chain)
		}
	}
	return out
}

// chunks cuts bundles into runs of at most limit claims, but never a bundle.
func chunks(in [][]*eventsv1.PlannedClaim, limit int) [][]*eventsv1.PlannedClaim {
	var out [][]*eventsv1.PlannedClaim
	for _, b := range in {
		if last := len(out) - 1; last >= 0 && len(out[last])+len(b) <= limit {
			out[last] = append(out[last], b...)
		} else {
			out = append(out, slices.Clone(b))
		}
	}
	return out
}

// takes tells whether the claim still has to tell exactly what was planned of
// it, and the event that does.
func takes(c State, planned *eventsv1.PlannedClaim, r Remit) (*eventsv1.ClaimRemitted, bool) {
	events, err := Decide(c, r)
	if err != nil {
		return nil, false
	}
	e, ok := events[0].(*eventsv1.ClaimRemitted)
	return e, ok && e.GetReversedRevision() == planned.GetReversedRevision() && e.GetDecisionRevision() == planned.GetDecisionRevision()
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

// issueRemittance decides on the last step: the planned claims that bear this
// remittance's mark, in the plan's order, and what the account made of their sum.
func issueRemittance(r RemittanceRecord, marks []*eventsv1.ClaimRemitted, account *eventsv1.PayeeAccountPosted) (*eventsv1.RemittanceIssued, error) {
	if r.Planned == nil {
		return nil, notFound("remittance")
	}
	if r.Issued != nil {
		return nil, conflict("remittances.issued", "the remittance was issued before")
	}
	out := proto.CloneOf(r.Planned)
	out.ClaimIds, out.Adjustments = nil, nil
	for _, m := range marks {
		out.ClaimIds = append(out.ClaimIds, m.GetClaimId())
		out.ClaimsCents += m.GetPaidCents()
		if m.GetInterestCents() != 0 {
			out.Adjustments = append(out.Adjustments, &claimsv1.ProviderAdjustment{ReasonCode: "L6", Reference: m.GetClaimId(), AmountCents: -m.GetInterestCents()})
		}
	}
	for _, b := range recoveredBalances(account) {
		out.Adjustments = append(out.Adjustments, &claimsv1.ProviderAdjustment{ReasonCode: "FB", Reference: b.GetTraceNumber(), AmountCents: b.GetAmountCents()})
	}
	if c := account.GetCarriedCents(); c > 0 {
		out.Adjustments = append(out.Adjustments, &claimsv1.ProviderAdjustment{ReasonCode: "FB", Reference: out.GetTraceNumber(), AmountCents: -c})
	}
	out.PaidCents, out.BalanceCents = out.GetClaimsCents(), account.GetBalanceCents()
	for _, a := range out.GetAdjustments() {
		out.PaidCents -= a.GetAmountCents()
	}
	if out.GetPaidCents() < 0 {
		return nil, defect("remittances.negative", "a remittance would pay less than nothing")
	}
	return &eventsv1.RemittanceIssued{Remittance: out}, nil
}

// PayeeAccount is what a payee owes a payer, as the account's stream tells it.
type PayeeAccount struct {
	Revision int64
	// Open are the balances that no remittance has recovered: at most one,
	// unless a remittance that had recovered one is void.
	Open     []*eventsv1.OpenBalance
	posted   map[string]*eventsv1.PayeeAccountPosted
	restored map[string]*eventsv1.PayeeAccountRestored
}

// Balance is what is owed in all, US cents, never negative.
func (a PayeeAccount) Balance() int64 {
	sum := int64(0)
	for _, b := range a.Open {
		sum += b.GetAmountCents()
	}
	return sum
}

// foldAccount reads an account's stream.
func foldAccount(events []eventstore.Recorded) PayeeAccount {
	a := PayeeAccount{
		Revision: eventstore.NoStream,
		posted:   map[string]*eventsv1.PayeeAccountPosted{}, restored: map[string]*eventsv1.PayeeAccountRestored{},
	}
	for _, r := range events {
		switch e := r.Event.(type) {
		case *eventsv1.PayeeAccountPosted:
			// One whose claims come to nothing moves no balance about.
			if e.GetNetCents() != 0 {
				a.Open = nil
			}
			if c := e.GetCarriedCents(); c > 0 {
				a.Open = append(a.Open, &eventsv1.OpenBalance{TraceNumber: e.GetTraceNumber(), AmountCents: c})
			}
			a.posted[e.GetRemittanceId()] = e
		case *eventsv1.PayeeAccountRestored:
			a.Open = append(a.Open, e.GetBalances()...)
			a.restored[e.GetRemittanceId()] = e
		}
		a.Revision = int64(r.Revision)
	}
	return a
}

// recoveredBalances are the balances that a posting brings in.
func recoveredBalances(e *eventsv1.PayeeAccountPosted) []*eventsv1.OpenBalance {
	switch {
	case len(e.GetRecoveredBalances()) > 0:
		return e.GetRecoveredBalances()
	case e.GetRecoveredCents() > 0:
		return []*eventsv1.OpenBalance{{TraceNumber: e.GetRecoveredTraceNumber(), AmountCents: e.GetRecoveredCents()}}
	}
	return nil
}

// post decides what a remittance does to the account, as the 835's guide has
// balances carried forward (005010X221A1, section 1.10.2.12, with X12's answers
// to RFI 738, 1604 and 2051): a remittance whose claims come to anything but
// zero brings the whole earlier balance in, under the trace number of the
// remittance that carried it, and carries what it can't pay of it under its
// own. So one balance is under way at a time, and a payment is never negative.
func (a PayeeAccount) post(m *claimsv1.Remittance, net int64) *eventsv1.PayeeAccountPosted {
	e := &eventsv1.PayeeAccountPosted{RemittanceId: m.GetRemittanceId(), TraceNumber: m.GetTraceNumber(), NetCents: net, BalanceCents: a.Balance()}
	if net == 0 {
		return e
	}
	if owed := a.Balance(); owed > 0 {
		e.RecoveredCents, e.RecoveredTraceNumber = owed, a.Open[0].GetTraceNumber()
	}
	if len(a.Open) > 1 {
		e.RecoveredBalances = a.Open
	}
	e.CarriedCents = max(0, a.Balance()-net)
	e.BalanceCents = e.GetCarriedCents()
	return e
}

// restore decides what voiding a remittance gives back to the account. A
// remittance that pays carries nothing, so there is nothing else to undo.
func (a PayeeAccount) restore(remittance string) (*eventsv1.PayeeAccountRestored, error) {
	posted := a.posted[remittance]
	switch {
	case posted == nil:
		return nil, defect("payments.void.unposted", "a remittance that was paid is not in its payee's account")
	case posted.GetCarriedCents() > 0:
		return nil, defect("payments.void.carries", "a remittance that pays carries a balance")
	}
	back := recoveredBalances(posted)
	e := &eventsv1.PayeeAccountRestored{RemittanceId: remittance, Balances: back, BalanceCents: a.Balance()}
	for _, b := range back {
		e.BalanceCents += b.GetAmountCents()
	}
	return e, nil
}
