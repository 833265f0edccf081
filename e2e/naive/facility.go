package naive

import (
	"slices"
	"strings"
)

// rate is how a contract prices a facility's claim.
type rate struct {
	Name     string   `json:"name"`
	Types    []string `json:"types_of_bill"`
	Revenues []string `json:"revenue_codes"`
	PerDiem  number   `json:"per_diem_cents"`
	Percent  number   `json:"percent_of_charge_bps"`
	Case     *struct {
		Base    number `json:"base_cents"`
		Weights []struct {
			Group  string `json:"drg"`
			Weight number `json:"weight"`
		} `json:"weights"`
	} `json:"case_rate"`
}

// weight of a diagnosis related group, in ten-thousandths; 0 is none.
func (r *rate) weight(group string) int64 {
	if r.Case == nil {
		return 0
	}
	for _, w := range r.Case.Weights {
		if w.Group == group {
			return int64(w.Weight)
		}
	}
	return 0
}

func (r *rate) fits(c *claim, w *work) bool {
	bill := c.Facility + c.Frequency
	if len(r.Types) > 0 && !slices.ContainsFunc(r.Types, func(t string) bool { return strings.HasPrefix(bill, t) }) {
		return false
	}
	if r.Case != nil {
		return r.weight(c.Group) > 0
	}
	return len(r.Revenues) == 0 || within(r.Revenues, w.Revenue)
}

// stay: inpatient care by the type of bill's second digit (NUBC).
func (c *claim) stay() bool { return c.Form == "I" && len(c.Facility) == 2 && c.Facility[1] == '1' }

// stayed denies what a stay's claim lacks, CO-16: the admission (837I, DTP*435
// and CL1), and room and board for more days than there were. The day of
// discharge isn't one, unless it is also the day of admission.
func stayed(c *claim, lines []*work) {
	if !c.stay() {
		return
	}
	if c.Admitted == "" || c.Admitted > c.Through || c.AdmissionType == "" || c.PatientStatus == "" {
		for _, w := range lines {
			w.deny("CO", "16")
		}
		return
	}
	had := int64(max(1, days(c.From, c.Through)))
	if c.PatientStatus == "30" && c.From != c.Through {
		had++ // still there at the end
	}
	billed := int64(0)
	for _, w := range lines {
		if w.Revenue >= "0100" && w.Revenue <= "0219" {
			billed += w.Quantity
		}
	}
	if billed > had*1000 || c.CoveredDays != nil && billed > *c.CoveredDays*1000 {
		for _, w := range lines {
			if w.Revenue >= "0100" && w.Revenue <= "0219" {
				w.deny("CO", "16")
			}
		}
	}
}

// stay prices a facility's lines by its contract's rates, and tells of which
// lines the price is then known. An amount for a stay is shared over the
// lines it is for, by charge, to the cent; it never exceeds these charges.
func (m *Model) stay(c *claim, lines []*work) {
	if c.Form != "I" {
		return
	}
	for i := range m.contracts {
		k := &m.contracts[i]
		rates := map[*work]*rate{}
		var ours []*work
		for _, w := range lines {
			if !w.open() || w.contract != k || k.Capitated {
				continue
			}
			ours = append(ours, w)
			for j := range k.Rates {
				if k.Rates[j].fits(c, w) {
					rates[w] = &k.Rates[j]
					break
				}
			}
		}
		var daily []*work // per diem, and what no rate takes in
		var perDiem int64
		byDay := false
		for _, w := range ours {
			switch r := rates[w]; {
			case r == nil:
				daily = append(daily, w)
			case r.Percent > 0:
				w.settlePrice(round(w.billable(), int64(r.Percent), 10000))
			case r.PerDiem > 0:
				daily, byDay = append(daily, w), true
				perDiem += round(int64(r.PerDiem), w.Quantity, 1000)
			}
		}
		if byDay {
			sharePrice(daily, perDiem)
		}
		for j := range k.Rates {
			r := &k.Rates[j]
			var whole []*work
			for _, w := range ours {
				if rates[w] == r && r.Case != nil {
					whole = append(whole, w)
				}
			}
			if len(whole) > 0 {
				sharePrice(whole, round(int64(r.Case.Base), r.weight(c.Group), 10000))
			}
		}
	}
}

// sharePrice gives each line its part of an amount.
func sharePrice(lines []*work, amount int64) {
	var charges, before int64
	for _, w := range lines {
		charges += w.billable()
	}
	amount = min(amount, charges)
	for _, w := range lines {
		upTo := before + w.billable()
		w.settlePrice(round(amount, upTo, charges) - round(amount, before, charges))
		before = upTo
	}
}

// settlePrice is a price that leaves nothing to the fee schedule.
func (w *work) settlePrice(allowed int64) {
	w.rated = true
	allowed = min(max(allowed, 0), w.billable())
	if allowed == 0 {
		w.deny("CO", "97")
		return
	}
	w.take("CO", "45", w.billable()-allowed)
	w.price, w.out.Allowed, w.payable = allowed, allowed, w.Quantity
}

// billable is the charge less what the facility itself says isn't covered.
func (w *work) billable() int64 { return w.Charge - w.Noncovered }
