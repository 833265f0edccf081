package adjudication

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/money"
)

// Explain tells a decision in plain words, one line a cent's fate: amounts,
// codes, clauses and figures; no health data, because a Decision holds none
// beyond its amounts.
func (d *Decision) Explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: charge %s", d.Status, d.Charge)
	if d.Status == Pended {
		b.WriteString("\n")
		for _, p := range d.PendReasons {
			where := "claim"
			if p.Line != 0 {
				where = fmt.Sprintf("line %d", p.Line)
			}
			fmt.Fprintf(&b, "  %s waits [%s; reason %s if refused]\n    %s\n", where, p.RuleID, codeText(p.CARC, p.RARC), p.Message)
			explainFacts(&b, p.Facts)
			for _, id := range p.Related {
				fmt.Fprintf(&b, "      earlier claim %s\n", id)
			}
		}
		d.Versions.explain(&b)
		return b.String()
	}
	fmt.Fprintf(&b, ", allowed %s, paid %s, patient owes %s", d.Allowed, d.Paid, d.Patient)
	if d.Network != "" {
		b.WriteString(", " + networkWords(d.Network))
	}
	switch {
	case d.DuplicateOf != "":
		b.WriteString(", repeats " + d.DuplicateOf)
	case d.Duplicate:
		b.WriteString(", repeats itself")
	}
	b.WriteString("\n")
	for i := range d.Lines {
		d.Lines[i].explain(&b)
	}
	for _, p := range d.Postings {
		amount := money.Cents(p.Amount).String()
		if p.Key.Kind == Visits {
			amount = strconv.FormatInt(p.Amount, 10)
		}
		fmt.Fprintf(&b, "  posts %s to the %s", amount, p.Key.words())
		if p.Key.PlanYear != 0 {
			fmt.Fprintf(&b, ", plan year from %s", p.Key.PlanYear)
		}
		b.WriteString("\n")
	}
	d.Versions.explain(&b)
	return b.String()
}

// explain names what the decision read, so that whoever doubts it can read the same.
func (v *Versions) explain(b *strings.Builder) {
	fmt.Fprintf(b, "  by rules %s", v.Engine)
	for _, read := range []struct{ what, version string }{
		{"plan", v.Plan}, {"contract", v.Contract}, {"fee schedule", v.FeeSchedule}, {"network", v.Network}, {"edits", v.Edits}, {"coverage", v.Coverage},
	} {
		if read.version != "" {
			fmt.Fprintf(b, ", %s %s", read.what, read.version)
		}
	}
	if v.AccumulatorsRevision < 0 {
		b.WriteString(", accumulators that hold nothing yet")
	} else {
		fmt.Fprintf(b, ", accumulators at revision %d", v.AccumulatorsRevision)
	}
	fmt.Fprintf(b, ", received %s\n", v.ReceivedDate)
}

func (l *LineDecision) explain(b *strings.Builder) {
	if l.Denied {
		fmt.Fprintf(b, "  line %d denied: charge %s", l.Number, l.Charge)
	} else {
		fmt.Fprintf(b, "  line %d: charge %s, allowed %s, paid %s, patient owes %s", l.Number, l.Charge, l.Allowed, l.Paid, l.Patient)
	}
	if l.Benefit != "" {
		b.WriteString(", benefit " + l.Benefit)
	}
	b.WriteString("\n")
	for _, a := range l.Adjustments {
		fmt.Fprintf(b, "    %s-%s %s: %s", a.Group, codeText(a.CARC, a.RARCs...), a.Amount, carcText(a.CARC))
		fmt.Fprintf(b, " [%s", a.RuleID)
		if a.Clause != "" {
			b.WriteString("; " + ClauseWords(a.Clause))
		}
		b.WriteString("]\n")
		for _, remark := range a.RARCs {
			if text, ok := codes.RARC(remark); ok {
				fmt.Fprintf(b, "      %s: %s\n", remark, text)
			}
		}
		explainFacts(b, a.Facts)
	}
}

func explainFacts(b *strings.Builder, facts []Fact) {
	for _, f := range facts {
		fmt.Fprintf(b, "      %s\n", FactWords(f.Key, f.Text()))
	}
}

func codeText(carc string, rarcs ...string) string {
	for _, r := range rarcs {
		if r != "" {
			carc += " " + r
		}
	}
	return carc
}

func carcText(code string) string {
	if text, ok := codes.CARC(code); ok {
		return text
	}
	return "no text for this code"
}
