package claims

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/money"
)

// The engine knows no protos. This file is the only translation between what
// is on the ledger and what the engine reads and says; it decides nothing.

// engineClaim translates a checked claim; dates that checkClaim has let
// through always parse.
func engineClaim(c *claimsv1.Claim, received adjudication.Date) adjudication.Claim {
	out := adjudication.Claim{
		FrequencyCode:            c.GetFrequencyCode(),
		PayerSequence:            c.GetPayerSequence(),
		PlaceOfService:           c.GetPlaceOfService(),
		Charge:                   money.Cents(c.GetChargeCents()),
		BillingNPI:               c.GetBillingProvider().GetNpi(),
		BillingTIN:               strings.ReplaceAll(c.GetBillingProvider().GetTaxId(), "-", ""),
		BillingTaxonomy:          c.GetBillingProvider().GetTaxonomy(),
		RenderingNPI:             c.GetRenderingProvider().GetNpi(),
		RenderingTaxonomy:        c.GetRenderingProvider().GetTaxonomy(),
		ReferringNPI:             c.GetReferringProvider().GetNpi(),
		ReferralNumber:           c.GetReferralNumber(),
		PriorAuthorizationNumber: c.GetPriorAuthorizationNumber(),
		ReceivedDate:             received,
		Diagnoses:                make([]adjudication.Diagnosis, 0, len(c.GetDiagnoses())),
		Lines:                    make([]adjudication.Line, 0, len(c.GetLines())),
	}
	switch c.GetForm() {
	case claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL:
		out.Form = adjudication.Professional
	case claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL:
		engineInstitutional(c, &out)
	}
	for _, d := range c.GetDiagnoses() {
		out.Diagnoses = append(out.Diagnoses, adjudication.Diagnosis{Code: d.GetCode(), Qualifier: d.GetQualifier()})
	}
	for _, l := range c.GetLines() {
		out.Lines = append(out.Lines, engineLine(c, l))
	}
	for _, p := range c.GetOtherPayers() {
		out.OtherPayers = append(out.OtherPayers, adjudication.OtherPayer{
			PayerID:       p.GetPayer().GetId(),
			PayerSequence: p.GetPayerSequence(),
			Adjudicated:   p.GetAdjudicated(),
			Paid:          money.Cents(p.GetPaidCents()),
			Adjustments:   enginePrior(p.GetAdjustments()),
		})
	}
	return out
}

// engineInstitutional fills in what only a facility's claim says. The
// statement's dates may also come only as the claim's dates, as a sender
// without the institutional message has them.
func engineInstitutional(c *claimsv1.Claim, out *adjudication.Claim) {
	in := c.GetInstitutional()
	out.Form = adjudication.Institutional
	out.TypeOfBill = strings.TrimPrefix(c.GetFacilityType()+c.GetFrequencyCode(), "0")
	from, to := statementDates(c)
	out.StatementFrom, _ = adjudication.ParseDate(from)
	out.StatementThrough, _ = adjudication.ParseDate(to)
	if out.StatementThrough == 0 {
		out.StatementThrough = out.StatementFrom
	}
	out.AdmissionDate, _ = adjudication.ParseDate(in.GetAdmissionDate())
	out.AdmissionType = in.GetAdmissionType()
	out.AdmissionSource = in.GetAdmissionSource()
	out.PatientStatus = in.GetPatientStatus()
	out.AttendingNPI = in.GetAttendingProvider().GetNpi()
	out.DRG = strings.TrimLeft(in.GetDrg(), "0")
	out.CoveredDays = -1
	for _, v := range in.GetValues() {
		if v.GetCode() == coveredDaysValue && v.GetHundredths() >= 0 {
			out.CoveredDays = v.GetHundredths() / 100
		}
	}
}

// coveredDaysValue is the NUBC value code of covered days.
const coveredDaysValue = "80"

// statementDates are the first and last day that an institutional claim bills.
func statementDates(c *claimsv1.Claim) (from, to string) {
	if in := c.GetInstitutional(); in.GetStatementFrom() != "" {
		return in.GetStatementFrom(), in.GetStatementThrough()
	}
	for _, d := range c.GetDates() {
		if d.GetQualifier() == "434" {
			from, to = d.GetStartDate(), d.GetEndDate()
		}
	}
	return from, to
}

func engineLine(c *claimsv1.Claim, l *claimsv1.ServiceLine) adjudication.Line {
	first, last := lineDates(c, l)
	out := adjudication.Line{
		Number:                   l.GetNumber(),
		ProcedureQualifier:       l.GetProcedureQualifier(),
		Procedure:                l.GetProcedure(),
		Modifiers:                l.GetModifiers(),
		Charge:                   money.Cents(l.GetChargeCents()),
		UnitCode:                 l.GetUnitCode(),
		QuantityMilli:            l.GetQuantityMilli(),
		PlaceOfService:           l.GetPlaceOfService(),
		DiagnosisPointers:        l.GetDiagnosisPointers(),
		Emergency:                l.GetEmergency(),
		ServiceDate:              first,
		ServiceEndDate:           last,
		RevenueCode:              l.GetRevenueCode(),
		NDC:                      l.GetNdc(),
		PriorAuthorizationNumber: l.GetPriorAuthorizationNumber(),
		RenderingNPI:             l.GetRenderingProvider().GetNpi(),
		Noncovered:               money.Cents(l.GetNoncoveredCents()),
	}
	for _, a := range l.GetPriorAdjudications() {
		out.PriorAdjudications = append(out.PriorAdjudications, adjudication.PriorAdjudication{
			PayerID: a.GetPayerId(), Paid: money.Cents(a.GetPaidCents()), Adjustments: enginePrior(a.GetAdjustments()),
		})
	}
	return out
}

// lineDates are a line's dates of service. An institutional line without its
// own is dated by the statement period of the claim (DTP*434).
func lineDates(c *claimsv1.Claim, l *claimsv1.ServiceLine) (first, last adjudication.Date) {
	from, to := l.GetServiceDate(), l.GetServiceEndDate()
	if from == "" && c.GetForm() == claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL {
		from, to = statementDates(c)
	}
	first, _ = adjudication.ParseDate(from)
	last, _ = adjudication.ParseDate(to)
	return first, last
}

func enginePrior(in []*claimsv1.PriorAdjustment) []adjudication.PriorAdjustment {
	var out []adjudication.PriorAdjustment
	for _, a := range in {
		out = append(out, adjudication.PriorAdjustment{Group: a.GetGroupCode(), CARC: a.GetCarc(), Amount: money.Cents(a.GetAmountCents())})
	}
	return out
}

// decisionProto translates the engine's answer.
func decisionProto(d adjudication.Decision) *claimsv1.Decision {
	out := &claimsv1.Decision{
		Status:       decisionStatus(d.Status),
		ChargeCents:  int64(d.Charge),
		AllowedCents: int64(d.Allowed),
		PaidCents:    int64(d.Paid),
		PatientCents: int64(d.Patient),
		PendReasons:  pendProtos(d.PendReasons),
		Versions: &claimsv1.Versions{
			Engine:               d.Versions.Engine,
			Plan:                 d.Versions.Plan,
			Contract:             d.Versions.Contract,
			FeeSchedule:          d.Versions.FeeSchedule,
			Network:              d.Versions.Network,
			Edits:                d.Versions.Edits,
			Coverage:             d.Versions.Coverage,
			AccumulatorsRevision: d.Versions.AccumulatorsRevision,
			ReceivedDate:         d.Versions.ReceivedDate,
			Reference:            d.Versions.Reference,
			OriginalStands:       d.OriginalStands,
		},
		Network:     d.Network,
		Duplicate:   d.Duplicate,
		DuplicateOf: d.DuplicateOf,
	}
	for _, l := range d.Lines {
		line := &claimsv1.LineDecision{
			Number:       l.Number,
			ChargeCents:  int64(l.Charge),
			AllowedCents: int64(l.Allowed),
			PaidCents:    int64(l.Paid),
			PatientCents: int64(l.Patient),
			Benefit:      l.Benefit,
		}
		for _, a := range l.Adjustments {
			line.Adjustments = append(line.Adjustments, adjustmentProto(a))
		}
		out.Lines = append(out.Lines, line)
	}
	for _, p := range d.Postings {
		out.Postings = append(out.Postings, postingProto(p))
	}
	return out
}

func adjustmentProto(a adjudication.Adjustment) *claimsv1.Adjustment {
	out := &claimsv1.Adjustment{
		GroupCode: a.Group, Carc: a.CARC, Rarcs: a.RARCs, AmountCents: int64(a.Amount), RuleId: a.RuleID, Clause: a.Clause,
	}
	out.Facts = factsProto(a.Facts)
	return out
}

func factsProto(in []adjudication.Fact) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for _, f := range in {
		out[f.Key] = f.Text()
	}
	return out
}

func postingProto(p adjudication.Posting) *claimsv1.AccumulatorPosting {
	return &claimsv1.AccumulatorPosting{
		Scope: p.Key.Scope.String(), Subject: p.Key.Subject, Kind: p.Key.KindName(),
		Network: p.Key.NetworkName(), PlanYear: p.Key.PlanYear.String(), Amount: p.Amount,
	}
}

func pendProtos(in []adjudication.PendReason) []*claimsv1.PendReason {
	var out []*claimsv1.PendReason
	for _, r := range in {
		out = append(out, &claimsv1.PendReason{RuleId: r.RuleID, Line: r.Line, Carc: r.CARC, Rarc: r.RARC, Message: r.Message, Facts: factsProto(r.Facts), RelatedClaimIds: r.Related})
	}
	return out
}

func enginePends(in []*claimsv1.PendReason) []adjudication.PendReason {
	var out []adjudication.PendReason
	for _, r := range in {
		out = append(out, adjudication.PendReason{RuleID: r.GetRuleId(), Line: r.GetLine(), CARC: r.GetCarc(), RARC: r.GetRarc(), Message: r.GetMessage(), Facts: engineFacts(r.GetFacts()), Related: r.GetRelatedClaimIds()})
	}
	return out
}

// engineFacts reads figures back, by key; a date is one too.
func engineFacts(in map[string]string) []adjudication.Fact {
	var out []adjudication.Fact
	for _, key := range slices.Sorted(maps.Keys(in)) {
		if n, err := strconv.ParseInt(in[key], 10, 64); err == nil {
			out = append(out, adjudication.Fact{Key: key, Value: n})
		} else if day, err := adjudication.ParseDate(in[key]); err == nil {
			out = append(out, adjudication.Fact{Key: key, Value: int64(day)})
		}
	}
	return out
}

func decisionStatus(s adjudication.Status) claimsv1.ClaimStatus {
	switch s {
	case adjudication.Pended:
		return claimsv1.ClaimStatus_CLAIM_STATUS_PENDED
	case adjudication.Paid:
		return claimsv1.ClaimStatus_CLAIM_STATUS_PAID
	case adjudication.Denied:
		return claimsv1.ClaimStatus_CLAIM_STATUS_DENIED
	}
	return claimsv1.ClaimStatus_CLAIM_STATUS_UNSPECIFIED
}

// encode is the one encoding of a message that is hashed or sealed: the same
// message always gives the same bytes with one build of this program.
func encode(m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, defect("claims.encode", "a message could not be encoded")
	}
	return b, nil
}

// decisionHash is the SHA-256 of a decision's encoding, which a replay compares.
func decisionHash(encoded []byte) []byte {
	sum := sha256.Sum256(encoded)
	return sum[:]
}

// codesOf lists a decision's distinct "group-CARC" in order of appearance.
func codesOf(d *claimsv1.Decision) []string {
	var out []string
	for _, l := range d.GetLines() {
		for _, a := range l.GetAdjustments() {
			if code := a.GetGroupCode() + "-" + a.GetCarc(); !slices.Contains(out, code) {
				out = append(out, code)
			}
		}
	}
	return out
}

// historyOf is what later claims of the family must know of this one: its
// lines, when anything of it was allowed. A claim that was wholly denied
// leaves none, for sending it again corrected is not a duplicate.
func historyOf(claim, subject string, c adjudication.Claim, d adjudication.Decision) *eventsv1.ServiceHistory {
	if !slices.ContainsFunc(d.Lines, func(l adjudication.LineDecision) bool { return !l.Denied }) {
		return nil
	}
	out := &eventsv1.ServiceHistory{}
	for _, l := range adjudication.Remember(claim, &adjudication.Input{Claim: c, Member: adjudication.Member{Subject: subject}}, &d) {
		out.Lines = append(out.Lines, &eventsv1.HistoryLine{
			ClaimId:              l.ClaimID,
			Number:               l.Number,
			Subject:              l.Subject,
			BillingNpi:           l.BillingNPI,
			RenderingNpi:         l.RenderingNPI,
			ServiceDate:          l.ServiceDate.String(),
			ServiceEndDate:       l.ServiceEndDate.String(),
			Procedure:            l.Procedure,
			Modifiers:            l.Modifiers,
			QuantityMilli:        l.QuantityMilli,
			ChargeCents:          int64(l.Charge),
			Allowed:              l.Allowed,
			AllowedQuantityMilli: l.AllowedQuantityMilli,
		})
	}
	return out
}

func engineHistory(h *eventsv1.ServiceHistory) ([]adjudication.HistoryLine, error) {
	out := make([]adjudication.HistoryLine, 0, len(h.GetLines()))
	for _, l := range h.GetLines() {
		first, err := adjudication.ParseDate(l.GetServiceDate())
		if err != nil {
			return nil, fmt.Errorf("claims: history: %w", err)
		}
		last, err := adjudication.ParseDate(l.GetServiceEndDate())
		if err != nil {
			return nil, fmt.Errorf("claims: history: %w", err)
		}
		out = append(out, adjudication.HistoryLine{
			ClaimID:              l.GetClaimId(),
			Number:               l.GetNumber(),
			Subject:              l.GetSubject(),
			BillingNPI:           l.GetBillingNpi(),
			RenderingNPI:         l.GetRenderingNpi(),
			ServiceDate:          first,
			ServiceEndDate:       last,
			Procedure:            l.GetProcedure(),
			Modifiers:            l.GetModifiers(),
			QuantityMilli:        l.GetQuantityMilli(),
			Charge:               money.Cents(l.GetChargeCents()),
			Allowed:              l.GetAllowed(),
			AllowedQuantityMilli: l.GetAllowedQuantityMilli(),
		})
	}
	return out, nil
}

func dollars(cents int64) string { return "$" + money.Cents(cents).String() }
