package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/probity-health/probity/e2e/naive"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/generate"
	"github.com/probity-health/probity/standalone"
)

// corrections of one file at most: a file decides runs of so many claims
// beside each other, and a family's corrections depend on their order.
const oneRun = 250

// adjustments are what is said of families once their claims are decided.
type adjustments struct {
	corrections  [2][]generate.Claim // professional, institutional
	terminations []generate.Termination
	// after is what then stands of every claim of these families.
	after map[string]naive.Outcome
}

// adjust asks the model what becomes of a family by what is said of it later.
// A family of which anything pends is left alone: whether a claim that waits
// for a person is corrected before or after is no matter of the engine's.
func (r *Run) adjust(f *generate.Family, model *naive.Model) error {
	pends := func(of map[string]naive.Outcome) bool {
		for _, o := range of {
			if o.Status == "pended" {
				return true
			}
		}
		return false
	}
	now := map[string]naive.Outcome{}
	for _, list := range [][]generate.Claim{f.Professional, f.Institutional} {
		for _, c := range list {
			now[c.ID] = r.expected[c.ID]
		}
	}
	var count [2]int
	for _, c := range f.Corrections {
		count[form(&c)]++
	}
	a := &r.adjusted
	if len(f.Corrections)+len(f.Terminations) == 0 || pends(now) || len(a.corrections[0])+count[0] > oneRun || len(a.corrections[1])+count[1] > oneRun {
		return nil
	}
	after := map[string]naive.Outcome{}
	// The professional file is decided first, as before.
	slices.SortStableFunc(f.Corrections, func(x, y generate.Claim) int { return form(&x) - form(&y) })
	for i := range f.Corrections {
		text, err := json.Marshal(&f.Corrections[i])
		if err != nil {
			return err
		}
		if after, err = model.Correct(text); err != nil {
			return err
		}
	}
	for _, t := range f.Terminations {
		var err error
		if after, err = model.Terminate(t.MemberID, t.Person.Birth, t.Person.First, t.End); err != nil {
			return err
		}
	}
	if pends(after) {
		return nil
	}
	for _, c := range f.Corrections {
		a.corrections[form(&c)] = append(a.corrections[form(&c)], c)
		r.kinds[c.ID] = c.Kind
		if c.Frequency == "7" && after[c.Original].ID == "" || c.Frequency == "8" {
			after[c.Original] = naive.Outcome{ID: c.Original, Status: "reversed"}
		}
	}
	a.terminations = append(a.terminations, f.Terminations...)
	maps.Copy(a.after, after)
	return nil
}

func form(c *generate.Claim) int {
	if c.Form == "I" {
		return 1
	}
	return 0
}

// Adjusted is what came of corrections and of what was learned late.
type Adjusted struct {
	Corrections, Terminations int
	// Claims that stand or were taken back of the families concerned.
	Claims int
	// Cents and Reasons of difference from the naive model, as in Result.
	Cents   int64
	Reasons int
	Told    []string
}

// Adjust files the corrections of the world, each naming the payer's number of
// what it replaces or voids, and ends the coverages that end late. Then every
// claim of the families concerned must stand as the naive model says, and all
// remittances together must have told just that: of each claim the sum of what
// was paid and taken back, and last the lines that stand.
func (r *Run) Adjust(ctx context.Context) (*Adjusted, error) {
	a := &r.adjusted
	out := &Adjusted{Corrections: len(a.corrections[0]) + len(a.corrections[1]), Terminations: len(a.terminations), Claims: len(a.after)}
	for k, list := range a.corrections {
		if err := r.correct(ctx, k, list); err != nil {
			return nil, err
		}
	}
	for _, t := range a.terminations {
		found, err := r.Clients.Policies.LookupMember(ctx, &policiesv1.LookupMemberRequest{PayerId: generate.PayerID, MemberId: t.MemberID, BirthDate: t.Person.Birth})
		if err != nil {
			return nil, err
		}
		if _, err := r.Clients.Policies.TerminateMember(ctx, &policiesv1.TerminateMemberRequest{RequestId: "late-" + t.MemberID, Subject: found.GetSubject(), EndDate: t.End}); err != nil {
			return nil, err
		}
	}
	r.say("%d corrections, %d late terminations: awaiting %d claims", out.Corrections, out.Terminations, out.Claims)
	if err := r.settled(ctx, out); err != nil {
		return nil, err
	}
	return out, r.told(ctx, out)
}

// correct submits corrections as a file and notes the payer's numbers of them.
func (r *Run) correct(ctx context.Context, k int, list []generate.Claim) error {
	if len(list) == 0 {
		return nil
	}
	world, err := r.World.Numbered(2)
	if err != nil {
		return err
	}
	var file bytes.Buffer
	w := world.NewWriter(&file, []string{"P", "I"}[k])
	for _, c := range list {
		if c.Original = r.ids[c.Original]; c.Original == "" {
			return fmt.Errorf("reconcile: what %s corrects has no claim number", c.ID)
		}
		if err := w.Claim(&c); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	submitted, err := standalone.Submit(ctx, r.Clients.Gateway, file.Bytes())
	if err != nil {
		return err
	}
	id := submitted.GetFile().GetFileId()
	if _, err := r.await(ctx, id, time.Now(), len(list), nil); err != nil {
		return err
	}
	got, err := r.Clients.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: id, IncludeOutcomes: true})
	if err != nil {
		return err
	}
	for i, o := range got.GetOutcomes() {
		r.ids[list[i].ID] = o.GetClaimId()
	}
	return nil
}

// settled waits until every claim stands as expected, and tells of those that
// don't come to it.
func (r *Run) settled(ctx context.Context, out *Adjusted) error {
	open := slices.Sorted(maps.Keys(r.adjusted.after))
	for end := time.Now().Add(time.Minute); ; {
		var last []string
		open = slices.DeleteFunc(open, func(id string) bool {
			got, err := r.Clients.Claims.GetClaim(ctx, &claimsv1.GetClaimRequest{ClaimId: r.ids[id]})
			if err != nil {
				last = append(last, fmt.Sprintf("%s: %v", id, err))
				return false
			}
			c, want := got.GetClaim(), r.adjusted.after[id]
			status := statuses[c.GetStatus()]
			if c.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED {
				status = "reversed"
			}
			if status == want.Status && (status == "reversed" || c.GetPaidCents() == want.Paid && c.GetPatientCents() == want.Patient) {
				return true
			}
			last = append(last, fmt.Sprintf("%s (%s) is %s, paid %d; naive %s, %d", id, r.kinds[id], status, c.GetPaidCents(), want.Status, want.Paid))
			return false
		})
		switch {
		case len(open) == 0:
			return nil
		case time.Now().After(end):
			for i, id := range open {
				out.Cents += max(r.adjusted.after[id].Charge, 1)
				if i < maxTold {
					out.Told = append(out.Told, last[i])
				}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// told runs a payment cycle and reads all remittances.
func (r *Run) told(ctx context.Context, out *Adjusted) error {
	issued := map[string]bool{}
	for n, more := 0, true; more; n++ {
		if n > 100 {
			return errors.New("reconcile: the payment cycle has no end")
		}
		got, err := r.Service.Remittances.CreateRemittances(ctx, &claimsv1.CreateRemittancesRequest{PayerId: generate.PayerID, RequestId: fmt.Sprint("reconcile-", n)})
		if err != nil {
			return err
		}
		more = got.GetMore()
		for _, m := range got.GetRemittances() {
			issued[m.GetRemittanceId()] = true
		}
	}
	net, decisions, reversals := map[string]int64{}, map[string][]adviceClaim{}, map[string][]adviceClaim{}
	all, err := r.listed(ctx, issued)
	if err != nil {
		return err
	}
	for _, one := range all {
		document, err := standalone.Document(ctx, r.Clients.Gateway, "835", one.GetRemittanceId())
		if err != nil {
			return err
		}
		if r.Remittance != nil {
			if err := r.Remittance(one.GetRemittanceId(), document); err != nil {
				return err
			}
		}
		advice, err := readAdvice(document)
		if err != nil {
			return fmt.Errorf("reconcile: %s: %w", one.GetRemittanceId(), err)
		}
		for _, c := range advice {
			if net[c.id] += c.paid; c.status == reversal {
				reversals[c.id] = append(reversals[c.id], c)
			} else {
				decisions[c.id] = append(decisions[c.id], c)
			}
		}
	}
	found := &Result{}
	check := &Run{expected: r.adjusted.after, kinds: r.kinds}
	for id, want := range r.adjusted.after {
		left := decisions[id]
		for _, taken := range reversals[id] {
			at := slices.IndexFunc(left, taken.reverses)
			if at < 0 {
				found.differ(taken.paid, "%s: what a remittance takes back was never told", id)
				continue
			}
			left = slices.Delete(slices.Clone(left), at, at+1)
		}
		decided := (want.Status == "paid" || want.Status == "denied") && r.kinds[id] != "void"
		if d := abs(net[id] - want.Paid); d > 0 {
			found.Cents += d
			found.tell("%s (%s): all remittances pay %d, naive %d", id, r.kinds[id], net[id], want.Paid)
		}
		switch {
		case decided && len(left) == 1:
			check.claim(left[0], found)
		case decided || len(left) > 0:
			found.differ(want.Charge, "%s (%s) is %s by the naive model; it stands %d times on remittances", id, r.kinds[id], want.Status, len(left))
		}
	}
	out.Cents, out.Reasons, out.Told = out.Cents+found.Cents, out.Reasons+found.Reasons, append(out.Told, found.Told...)
	return nil
}

// listed are all remittances, once the list has caught up with those that were issued.
func (r *Run) listed(ctx context.Context, issued map[string]bool) ([]*claimsv1.Remittance, error) {
	for {
		var all []*claimsv1.Remittance
		have := 0
		for token := ""; ; {
			page, err := r.Clients.Remittances.ListRemittances(ctx, &claimsv1.ListRemittancesRequest{PageSize: 1000, PageToken: token})
			if err != nil {
				return nil, err
			}
			for _, m := range page.GetRemittances() {
				if issued[m.GetRemittanceId()] {
					have++
				}
			}
			all = append(all, page.GetRemittances()...)
			if token = page.GetNextPageToken(); token == "" {
				break
			}
		}
		if have == len(issued) {
			return all, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("reconcile: the list has %d of %d remittances that were issued: %w", have, len(issued), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// reverses tells whether a reversal takes back this decision: the same lines
// for the same reasons, every amount negated (005010X221A1, 1.10.2.8).
func (c adviceClaim) reverses(was adviceClaim) bool {
	if c.charge != -was.charge || c.paid != -was.paid || len(c.lines) != len(was.lines) {
		return false
	}
	for i, l := range c.lines {
		o := was.lines[i]
		negated := map[string]int64{}
		for code, cents := range o.adjustments {
			negated[code] = -cents
		}
		if l.charge != -o.charge || l.paid != -o.paid || !maps.Equal(l.adjustments, negated) {
			return false
		}
	}
	return true
}

// reversal is CLP02 of a claim that takes back an earlier one.
const reversal = "22"
