package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

func (a *app) claimsExplain() *cobra.Command {
	var line uint32
	var unproven bool
	var policyFile string
	cmd := &cobra.Command{
		Use:   "explain CLAIM_ID",
		Short: "Say why every cent was or was not paid, and prove it",
		Long: `Say why every cent was or was not paid, and prove it.

The decision is made anew from the ledger while you wait and compared bit for
bit with what was recorded; the ledger is asked for the receipt. Both are part
of the answer, and a replay that differs ends with exit code 6.

With --policy the receipt is verified too, here and under the keys of that
file: that it is of this claim's decision, that a quorum cosigned it, and that
the decision shown is the one it proves. Where it isn't, the exit code is 7.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if unproven && policyFile != "" {
				return usagef("--no-proof and --policy contradict each other")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.claims.ExplainClaim(cmd.Context(), &claimsv1.ExplainClaimRequest{ClaimId: args[0]})
			if err != nil {
				return err
			}
			if line > 0 && !slices.ContainsFunc(got.GetDecision().GetLines(), func(l *claimsv1.LineDecision) bool { return l.GetNumber() == line }) {
				return problem.New(problem.NotFound, problem.Problem{
					RuleID: "cli.explain.line", Message: fmt.Sprintf("the decision has no line %d", line), Fix: "leave --line out to see them all",
				})
			}
			var proof proof
			if !unproven {
				if proof, err = a.prove(cmd.Context(), conn, got.GetClaim()); err != nil {
					return err
				}
			}
			if policyFile != "" {
				if proof.Receipt, err = a.verifyDecision(cmd.Context(), conn, got, policyFile); err != nil {
					return err
				}
			}
			e := explain(got, line, proof)
			if err := a.emit(e, nil, func(w io.Writer) error { a.printExplanation(w, e); return nil }); err != nil {
				return err
			}
			if proof.Receipt != nil && proof.Receipt.State == "refuted" {
				return outcome(ExitProofFailed)
			}
			if proof.Replay != nil && proof.Replay.Verdict == "different" {
				return outcome(ExitDiffers)
			}
			return nil
		},
	}
	cmd.Flags().Uint32Var(&line, "line", 0, "only this line")
	cmd.Flags().BoolVar(&unproven, "no-proof", false, "neither replay the decision nor ask for its receipt")
	cmd.Flags().StringVar(&policyFile, "policy", "", "verify the receipt under this policy file (probity keys)")
	return cmd
}

// explanation is what explain tells: the services' own messages, and beside
// them the way of every cent and the proof.
type explanation struct {
	Claim     json.RawMessage `json:"claim"`
	Decision  json.RawMessage `json:"decision"`
	Submitted json.RawMessage `json:"submitted,omitempty"`
	Waits     []waitTold      `json:"waits,omitempty"`
	Lines     []lineTold      `json:"lines"`
	Proof     proof           `json:"proof"`

	summary  *claimsv1.ClaimSummary
	decision *claimsv1.Decision
}

// waitTold is what a claim waits for.
type waitTold struct {
	Rule      string   `json:"ruleId"`
	Text      string   `json:"text"`
	FactTexts []string `json:"factTexts,omitempty"`
	Related   []string `json:"relatedClaimIds,omitempty"` // earlier claims
}

// lineTold is one line: charge = paid + the amounts of why.
type lineTold struct {
	Number       uint32   `json:"number"`
	Procedure    string   `json:"procedure"`
	Outcome      string   `json:"outcome"` // "PAID", "DENIED"
	ChargeCents  int64    `json:"chargeCents"`
	AllowedCents int64    `json:"allowedCents"`
	PaidCents    int64    `json:"paidCents"`
	PatientCents int64    `json:"patientCents"`
	Benefit      string   `json:"benefit,omitempty"`
	Why          []reason `json:"why"`
}

// reason is some cents not paid.
type reason struct {
	Group       string            `json:"groupCode"`
	CARC        string            `json:"carc"`
	RARCs       []string          `json:"rarcs,omitempty"`
	AmountCents int64             `json:"amountCents"`
	Bearer      string            `json:"bearer"` // who bears them, in words
	Text        string            `json:"text"`   // the reason code's, in words
	Rule        string            `json:"ruleId"`
	Clause      string            `json:"clause,omitempty"`
	Facts       map[string]string `json:"facts,omitempty"`
	Where       where             `json:"where"`
	Next        string            `json:"next,omitempty"`
	// What clause, facts and remark codes say, in words.
	ClauseText string   `json:"clauseText,omitempty"`
	FactTexts  []string `json:"factTexts,omitempty"`
	RARCTexts  []string `json:"rarcTexts,omitempty"` // "code: text"
}

// where names the field that the rule looked at, in the forms people hold in their hands.
type where struct {
	JSON string `json:"json"`
	X12  string `json:"x12"`
	Form string `json:"form"`
}

func (w where) String() string { return "JSON " + w.JSON + " · " + w.X12 + " · " + w.Form }

// proof is what stands behind a decision.
type proof struct {
	Position string        `json:"position,omitempty"`
	Receipt  *receiptTold  `json:"receipt,omitempty"`
	Replay   *replayedTold `json:"replay,omitempty"`
}

type receiptTold struct {
	// State is "sealed", or "pending" until the block is signed; where a policy
	// was given "verified" or "refuted".
	State   string   `json:"state"`
	Block   uint64   `json:"block,omitempty"`
	Policy  string   `json:"policy,omitempty"` // the file
	Signers []string `json:"signers,omitempty"`
	Reason  string   `json:"reason,omitempty"` // what is not proved
}

// maxReceiptWait is how long a verified explanation waits for the quorum.
const maxReceiptWait = 30 * time.Second

// verifyDecision verifies offline what the ledger hands out of a decision: that
// the receipt is of its commit and final under the policy, and that the commit
// recorded for this claim the decision that is shown.
func (a *app) verifyDecision(ctx context.Context, conn *connection, got *claimsv1.ExplainClaimResponse, policyFile string) (*receiptTold, error) {
	policy, err := readPolicy(policyFile)
	if err != nil {
		return nil, err
	}
	answer, err := a.sealed(ctx, conn, got.GetClaim().GetPosition(), true, maxReceiptWait)
	if err != nil {
		return nil, err
	}
	out := &receiptTold{State: "refuted", Policy: policyFile}
	proved, err := receipt.Verify(answer.GetReceipt(), policy)
	if err == nil {
		out.Block, out.Signers = proved.Height, proved.Signers
		err = receipt.VerifyCommit(proved, answer.GetCommit())
	}
	if at := fmt.Sprintf("%s/%d/%d", proved.Log, proved.Shard, proved.Index); err == nil && at != place(got.GetClaim().GetPosition()) {
		err = fmt.Errorf("the receipt is of %s", at)
	}
	if err == nil {
		err = decides(answer.GetCommit(), got)
	}
	if err != nil {
		out.Reason = err.Error()
		return out, nil
	}
	out.State = "verified"
	return out, nil
}

// decides holds a commit against a claim's decision: the last decision of the
// claim in it has the hash of the one that is shown.
func decides(commit []byte, got *claimsv1.ExplainClaimResponse) error {
	var record ledgerv1.Commit
	if err := proto.Unmarshal(commit, &record); err != nil {
		return errors.New("the commit that was proved can't be read")
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(got.GetDecision())
	if err != nil {
		return err
	}
	hash := sha256.Sum256(encoded)
	var decided eventsv1.ClaimDecided
	for _, w := range record.GetWrites() {
		for _, e := range w.GetEvents() {
			var one eventsv1.ClaimDecided
			if e.GetType() == string(one.ProtoReflect().Descriptor().FullName()) && proto.Unmarshal(e.GetPayload(), &one) == nil && one.GetClaimId() == got.GetClaim().GetClaimId() {
				proto.Reset(&decided)
				proto.Merge(&decided, &one)
			}
		}
	}
	switch {
	case decided.GetClaimId() == "":
		return errors.New("the commit that was proved decides another claim")
	case !bytes.Equal(hash[:], decided.GetDecisionSha256()):
		return errors.New("the decision shown is not the one that was proved")
	}
	return nil
}

type replayedTold struct {
	Verdict     string            `json:"verdict"` // "identical", "different", "other-engine", "erased"
	SHA256      string            `json:"sha256"`
	Differences []json.RawMessage `json:"differences,omitempty"`
}

// prove asks for the last decision's receipt, once, and for its replay.
func (a *app) prove(ctx context.Context, conn *connection, c *claimsv1.ClaimSummary) (proof, error) {
	out := proof{Position: place(c.GetPosition())}
	got, err := conn.ledger.GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: c.GetPosition()})
	var p *problem.Error
	switch {
	case err == nil:
		r, err := receipt.Parse(got.GetReceipt())
		if err != nil {
			return out, err
		}
		out.Receipt = &receiptTold{State: "sealed", Block: r.Header.Height}
	case errors.As(err, &p) && (p.Retryable() || p.Kind == problem.Conflict):
		out.Receipt = &receiptTold{State: "pending"}
	default:
		return out, err
	}
	replayed, err := conn.replay(ctx, &claimsv1.ReplayDecisionsRequest{ClaimId: c.GetClaimId(), KeepGoing: true}, nil)
	if err != nil {
		return out, err
	}
	for _, d := range replayed.decisions {
		if place(d.GetPosition()) == out.Position {
			out.Replay = toldReplay(d)
		}
	}
	return out, nil
}

func toldReplay(d *claimsv1.ReplayedDecision) *replayedTold {
	out := &replayedTold{Verdict: verdicts[d.GetVerdict()], SHA256: hex.EncodeToString(d.GetRecordedSha256())}
	for _, x := range d.GetDifferences() {
		out.Differences = append(out.Differences, raw(x))
	}
	return out
}

// explain puts an answer into words; only 0 is every line.
func explain(got *claimsv1.ExplainClaimResponse, only uint32, p proof) explanation {
	e := explanation{
		Claim: raw(got.GetClaim()), Decision: raw(got.GetDecision()), Proof: p, Lines: []lineTold{},
		summary: got.GetClaim(), decision: got.GetDecision(),
	}
	if got.GetSubmitted() != nil {
		e.Submitted = raw(got.GetSubmitted())
	}
	for _, p := range got.GetDecision().GetPendReasons() {
		e.Waits = append(e.Waits, waitTold{Rule: p.GetRuleId(), Text: p.GetMessage(), FactTexts: factTexts(p.GetFacts()), Related: p.GetRelatedClaimIds()})
	}
	for i, l := range got.GetDecision().GetLines() {
		if only > 0 && l.GetNumber() != only {
			continue
		}
		t := lineTold{
			Number: l.GetNumber(), Procedure: procedure(got.GetSubmitted(), i), Outcome: "PAID", Benefit: l.GetBenefit(), Why: []reason{},
			ChargeCents: l.GetChargeCents(), AllowedCents: l.GetAllowedCents(), PaidCents: l.GetPaidCents(), PatientCents: l.GetPatientCents(),
		}
		if l.GetAllowedCents() == 0 && len(l.GetAdjustments()) == 1 && l.GetAdjustments()[0].GetAmountCents() == l.GetChargeCents() {
			t.Outcome = "DENIED"
		}
		for _, adj := range l.GetAdjustments() {
			t.Why = append(t.Why, reasonOf(got.GetSubmitted(), i, adj))
		}
		e.Lines = append(e.Lines, t)
	}
	return e
}

// bearer says who bears the cents of an adjustment. What the provider can still
// put right isn't written off yet. Other adjustments (OA) are nobody's to pay;
// only of reason 23 have other payers taken them up.
func bearer(adj *claimsv1.Adjustment) string {
	switch adj.GetGroupCode() {
	case "CO":
		if nextStep(adj) != "" {
			return "not the patient's to pay"
		}
		return "the provider writes it off"
	case "PR":
		return "the patient owes it"
	case "PI":
		return "withheld by the payer"
	}
	if adj.GetCarc() == "23" {
		return "taken up by earlier payers"
	}
	return "neither the provider nor the patient bears it"
}

func reasonOf(c *claimsv1.Claim, i int, adj *claimsv1.Adjustment) reason {
	text, known := codes.CARC(adj.GetCarc())
	if !known {
		text = "no text for this code"
	}
	r := reason{
		Group: adj.GetGroupCode(), CARC: adj.GetCarc(), RARCs: adj.GetRarcs(), AmountCents: adj.GetAmountCents(),
		Bearer: bearer(adj), Text: text, Rule: adj.GetRuleId(), Clause: adj.GetClause(), Facts: adj.GetFacts(),
		Where: whereOf(c, i, adj.GetRuleId()), Next: nextStep(adj), FactTexts: factTexts(adj.GetFacts()),
	}
	if r.Clause != "" {
		r.ClauseText = adjudication.ClauseWords(r.Clause)
	}
	for _, remark := range r.RARCs {
		if text, ok := codes.RARC(remark); ok {
			r.RARCTexts = append(r.RARCTexts, remark+": "+text)
		}
	}
	return r
}

// factTexts are facts in words, by their keys; what was allowed comes last,
// for that is where the other figures lead to.
func factTexts(facts map[string]string) []string {
	const last = "allowed_cents"
	var out []string
	for _, key := range slices.Sorted(maps.Keys(facts)) {
		if key != last {
			out = append(out, adjudication.FactWords(key, facts[key]))
		}
	}
	if allowed, ok := facts[last]; ok {
		out = append(out, adjudication.FactWords(last, allowed))
	}
	return out
}

// fields are where a rule looks: by the rule's full id, else by its stage.
// Each is JSON, then 837P loop and element with the CMS-1500 box, then 837I
// with the UB-04 form locator. "%d" is the line, from 0 in JSON.
var fields = map[string][5]string{
	"member":                    {"subscriber.member_id", "2010BA/NM109", "CMS-1500 box 1a", "2010BA/NM109", "UB-04 FL 60"},
	"eligibility":               {"lines[%d].service_date", "2400/DTP*472", "CMS-1500 box 24A", "2400/DTP*472", "UB-04 FL 45"},
	"timely":                    {"lines[%d].service_date", "2400/DTP*472", "CMS-1500 box 24A", "2400/DTP*472", "UB-04 FL 45"},
	"complete":                  {"lines[%d]", "2400/SV1", "CMS-1500 box 24", "2400/SV2", "UB-04 FL 42-47"},
	"complete.units":            {"lines[%d].quantity_milli", "2400/SV104", "CMS-1500 box 24G", "2400/SV205", "UB-04 FL 46"},
	"complete.charge":           {"lines[%d].charge_cents", "2400/SV102", "CMS-1500 box 24F", "2400/SV203", "UB-04 FL 47"},
	"complete.place_of_service": {"lines[%d].place_of_service", "2400/SV105", "CMS-1500 box 24B", "2300/CLM05-1", "UB-04 FL 4"},
	"complete.diagnosis":        {"lines[%d].diagnosis_pointers", "2400/SV107", "CMS-1500 box 24E", "2300/HI", "UB-04 FL 67"},
	"complete.diagnosis_code":   {"diagnoses", "2300/HI", "CMS-1500 box 21", "2300/HI", "UB-04 FL 67"},
	"complete.revenue_code":     {"lines[%d].revenue_code", "2400/SV1", "CMS-1500 box 24", "2400/SV201", "UB-04 FL 42"},
	"complete.modifier_code":    {"lines[%d].modifiers", "2400/SV101-3", "CMS-1500 box 24D", "2400/SV202-3", "UB-04 FL 44"},
	"complete.modifier_pair":    {"lines[%d].modifiers", "2400/SV101-3", "CMS-1500 box 24D", "2400/SV202-3", "UB-04 FL 44"},
	"complete.service_date":     {"lines[%d].service_date", "2400/DTP*472", "CMS-1500 box 24A", "2400/DTP*472", "UB-04 FL 45"},
	"complete.end_date":         {"lines[%d].service_end_date", "2400/DTP*472", "CMS-1500 box 24A", "2400/DTP*472", "UB-04 FL 45"},
	"complete.future":           {"lines[%d].service_date", "2400/DTP*472", "CMS-1500 box 24A", "2400/DTP*472", "UB-04 FL 45"},
	"provider":                  {"billing_provider.npi", "2010AA/NM109", "CMS-1500 box 33a", "2010AA/NM109", "UB-04 FL 56"},
	"network":                   {"billing_provider.npi", "2010AA/NM109", "CMS-1500 box 33a", "2010AA/NM109", "UB-04 FL 56"},
	"network.no_referral":       {"referral_number", "2300/REF*9F", "CMS-1500 box 17", "2300/REF*9F", "UB-04 FL 78"},
	"authorization":             {"prior_authorization_number", "2300/REF*G1", "CMS-1500 box 23", "2300/REF*G1", "UB-04 FL 63"},
	"benefit.diagnosis_pointer": {"lines[%d].diagnosis_pointers", "2400/SV107", "CMS-1500 box 24E", "2300/HI", "UB-04 FL 67"},
	"price":                     {"lines[%d].charge_cents", "2400/SV102", "CMS-1500 box 24F", "2400/SV203", "UB-04 FL 47"},
	"price.contract_units":      {"lines[%d].quantity_milli", "2400/SV104", "CMS-1500 box 24G", "2400/SV205", "UB-04 FL 46"},
	"units":                     {"lines[%d].quantity_milli", "2400/SV104", "CMS-1500 box 24G", "2400/SV205", "UB-04 FL 46"},
	// Of institutional claims alone; the professional forms are never shown.
	"institutional.type_of_bill":          {"facility_type", "", "", "2300/CLM05", "UB-04 FL 4"},
	"institutional.statement_period":      {"institutional.statement_from", "", "", "2300/DTP*434", "UB-04 FL 6"},
	"institutional.outside_statement":     {"lines[%d].service_date", "", "", "2400/DTP*472", "UB-04 FL 45"},
	"institutional.admission_date":        {"institutional.admission_date", "", "", "2300/DTP*435", "UB-04 FL 12"},
	"institutional.admission_type":        {"institutional.admission_type", "", "", "2300/CL101", "UB-04 FL 14"},
	"institutional.admission_source":      {"institutional.admission_source", "", "", "2300/CL102", "UB-04 FL 15"},
	"institutional.patient_status":        {"institutional.patient_status", "", "", "2300/CL103", "UB-04 FL 17"},
	"institutional.attending":             {"institutional.attending_provider", "", "", "2310A/NM1*71", "UB-04 FL 76"},
	"institutional.attending_npi_invalid": {"institutional.attending_provider.npi", "", "", "2310A/NM109", "UB-04 FL 76"},
	"institutional.covered_days":          {"lines[%d].quantity_milli", "", "", "2400/SV205", "UB-04 FL 46"},
	"institutional.noncovered":            {"lines[%d].noncovered_cents", "", "", "2400/SV207", "UB-04 FL 48"},
	"cob":                                 {"other_payers", "2320/CAS, 2430/SVD", "CMS-1500 box 9", "2320/CAS, 2430/SVD", "UB-04 FL 50"},
	"":                                    {"lines[%d].procedure", "2400/SV101", "CMS-1500 box 24D", "2400/SV202", "UB-04 FL 44"},
}

func whereOf(c *claimsv1.Claim, i int, rule string) where {
	f, ok := fields[rule]
	if !ok {
		stage, _, _ := strings.Cut(rule, ".")
		if f, ok = fields[stage]; !ok {
			f = fields[""]
		}
	}
	out := where{JSON: strings.ReplaceAll(f[0], "%d", strconv.Itoa(i)), X12: "837P " + f[1], Form: f[2] + fmt.Sprintf(" line %d", i+1)}
	if c.GetForm() == claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL {
		out.X12, out.Form = "837I "+f[3], f[4]+fmt.Sprintf(" line %d", i+1)
	}
	if !strings.Contains(f[0], "%d") {
		out.Form = strings.TrimSuffix(out.Form, fmt.Sprintf(" line %d", i+1))
	}
	return out
}

// nextStep says what can be done about a denial; "" where nothing is to do.
func nextStep(adj *claimsv1.Adjustment) string {
	rule := adj.GetRuleId()
	if stage, _, _ := strings.Cut(rule, "."); stage == "pair" && adj.GetFacts()["modifier_indicator"] == "1" {
		return "if the two were separate services, send it again with the modifier that says so (59, XE, XP, XS or XU)"
	}
	switch rule {
	case "cob.no_primary_decision":
		return "send it again with the other payer's decision (2320, 2430)"
	case "authorization.absent", "authorization.not_in_force":
		return "ask the payer for an authorisation, then send it again with its number"
	case "network.no_referral":
		return "send it again with the referral's number"
	case "timely.late_correction":
		return "nothing: the claim it was to replace stands as it was decided"
	case "institutional.noncovered":
		return "" // the provider said so
	case "duplicate.exact", "duplicate.in_claim":
		return "nothing if it is the same service; if it was another, send it again with a modifier that tells them apart"
	case "units.day_appealable":
		return "appeal with the records that show the units: probity appeals file CLAIM_ID"
	case "authorization.document":
		return "send the document that the plan asks for"
	case "timely.late":
		return "show the receipt of an earlier submission: probity receipt CLAIM_ID"
	}
	switch stage, _, _ := strings.Cut(rule, "."); stage {
	case "complete", "institutional", "provider", "member", "claim":
		return "correct the field and send it again"
	}
	return ""
}

func (a *app) printExplanation(w io.Writer, e explanation) {
	c, d := e.summary, e.decision
	fmt.Fprintf(w, "Claim %s · %s · charge %s · plan pays %s · patient owes %s\n", c.GetClaimId(), a.status(c.GetStatus()),
		dollars(d.GetChargeCents()), dollars(d.GetPaidCents()), dollars(d.GetPatientCents()))
	v := d.GetVersions()
	var by []string
	for _, one := range []struct{ name, value string }{
		{"plan", v.GetPlan()}, {"contract", v.GetContract()}, {"fee schedule", v.GetFeeSchedule()}, {"network", v.GetNetwork()}, {"engine", v.GetEngine()}, {"received", v.GetReceivedDate()},
	} {
		if one.value != "" {
			by = append(by, one.name+" "+one.value)
		}
	}
	fmt.Fprintf(w, "  by     %s\n", strings.Join(by, ", "))
	if e.Proof.Position != "" {
		fmt.Fprintf(w, "  proof  %s\n", a.proofWords(e.Proof))
	}
	for _, x := range e.Proof.differences() {
		fmt.Fprintf(w, "         %s\n", x)
	}
	if who := next(c); who != "" {
		if slices.ContainsFunc(e.Lines, func(l lineTold) bool {
			return slices.ContainsFunc(l.Why, func(r reason) bool { return r.Next != "" })
		}) {
			who += "; what else can be done stands with the lines"
		}
		fmt.Fprintf(w, "  next   %s\n", who)
	}
	for _, x := range e.Waits {
		fmt.Fprintf(w, "  waits  %s (%s)\n", x.Text, x.Rule)
		for _, text := range x.FactTexts {
			fmt.Fprintf(w, "         %s\n", text)
		}
		for _, id := range x.Related {
			fmt.Fprintf(w, "         earlier claim %s\n", id)
		}
	}
	for _, l := range e.Lines {
		fmt.Fprintf(w, "\nLine %d · %s · %s · plan pays %s · patient owes %s\n", l.Number, l.Procedure, l.Outcome, dollars(l.PaidCents), dollars(l.PatientCents))
		fmt.Fprintf(w, "  cents  %s\n", l.sum())
		if l.Benefit != "" {
			fmt.Fprintf(w, "  under  benefit %s, allowed %s\n", l.Benefit, dollars(l.AllowedCents))
		}
		for _, r := range l.Why {
			a.printReason(w, r)
		}
	}
}

// sum is the line's equation: where every cent of the charge went.
func (l lineTold) sum() string {
	parts := []string{dollars(l.PaidCents) + " paid"}
	for _, r := range l.Why {
		parts = append(parts, fmt.Sprintf("%s %s-%s", dollars(r.AmountCents), r.Group, r.CARC))
	}
	return dollars(l.ChargeCents) + " = " + strings.Join(parts, " + ")
}

func (a *app) printReason(w io.Writer, r reason) {
	code := strings.Join(append([]string{r.Group + "-" + r.CARC}, r.RARCs...), " ")
	fmt.Fprintf(w, "  why    %s, %s: %s\n", dollars(r.AmountCents), r.Bearer, r.Text)
	for _, text := range r.RARCTexts {
		fmt.Fprintf(w, "         %s\n", text)
	}
	if r.ClauseText != "" {
		fmt.Fprintf(w, "  clause %s\n", r.ClauseText)
	}
	parts := append([]string{code, r.Rule}, r.FactTexts...)
	fmt.Fprintf(w, "         %s\n", strings.Join(parts, " · "))
	fmt.Fprintf(w, "  where  %s\n", r.Where)
	if r.Next != "" {
		fmt.Fprintf(w, "  next   %s\n", r.Next)
	}
}

func (a *app) proofWords(p proof) string {
	parts := []string{p.Position}
	switch {
	case p.Receipt == nil:
	case p.Receipt.State == "sealed":
		parts = append(parts, fmt.Sprintf("receipt sealed in block %d", p.Receipt.Block))
	case p.Receipt.State == "verified":
		parts = append(parts, fmt.Sprintf("%s under %s: final in block %d, signed by %s", a.paint(green, "receipt verified"), p.Receipt.Policy, p.Receipt.Block, strings.Join(p.Receipt.Signers, ", ")))
	case p.Receipt.State == "refuted":
		parts = append(parts, fmt.Sprintf("%s under %s: %s", a.paint(red, "NOT PROVED"), p.Receipt.Policy, p.Receipt.Reason))
	default:
		parts = append(parts, "receipt pending")
	}
	if p.Replay != nil {
		words := "replay " + p.Replay.Verdict
		if p.Replay.Verdict != "identical" {
			words = a.paint(red, words)
		}
		parts = append(parts, words+" sha256:"+p.Replay.SHA256)
	}
	return strings.Join(parts, " · ")
}

func (p proof) differences() []string {
	if p.Replay == nil {
		return nil
	}
	var out []string
	for _, x := range p.Replay.Differences {
		out = append(out, string(x))
	}
	return out
}

func procedure(c *claimsv1.Claim, i int) string {
	if i >= len(c.GetLines()) {
		return "-"
	}
	l := c.GetLines()[i]
	code := l.GetProcedure()
	if code == "" {
		code = "revenue " + l.GetRevenueCode()
	}
	return strings.Join(append([]string{code}, l.GetModifiers()...), "-")
}
