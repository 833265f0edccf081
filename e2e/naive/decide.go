package naive

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// Outcome is what becomes of a claim. Amounts are US cents.
type Outcome struct {
	ID      string `json:"id"`
	Status  string `json:"status"` // "paid", "denied", "pended", "rejected"
	Charge  int64  `json:"charge_cents"`
	Allowed int64  `json:"allowed_cents"`
	Paid    int64  `json:"paid_cents"`
	Patient int64  `json:"patient_cents"`
	// Lines are empty for a pended or rejected claim: nothing is decided.
	Lines []LineOutcome `json:"lines,omitempty"`
	// Why it pends.
	Pends []string `json:"pends,omitempty"`
}

// LineOutcome is one line's: charge = paid + the adjustments.
type LineOutcome struct {
	Number      int          `json:"number"`
	Denied      bool         `json:"denied,omitempty"`
	Charge      int64        `json:"charge_cents"`
	Allowed     int64        `json:"allowed_cents"`
	Paid        int64        `json:"paid_cents"`
	Patient     int64        `json:"patient_cents"`
	Adjustments []Adjustment `json:"adjustments,omitempty"`
}

// Adjustment is cents not paid.
type Adjustment struct {
	Group  string `json:"group"`
	CARC   string `json:"carc"`
	Amount int64  `json:"amount_cents"`
}

type claim struct {
	ID        string       `json:"id"`
	Form      string       `json:"form"`
	Member    string       `json:"member_id"`
	Patient   person       `json:"patient"`
	Billing   string       `json:"billing_npi"`
	Rendering string       `json:"rendering_npi"`
	Referral  string       `json:"referral"`
	Auth      string       `json:"authorization"`
	Place     string       `json:"place"`
	Facility  string       `json:"facility_type"`
	Taxonomy  string       `json:"billing_taxonomy"`
	TaxID     string       `json:"billing_tax_id"`
	Frequency string       `json:"frequency"`
	Original  string       `json:"original"`
	Sequence  string       `json:"sequence"`
	Charge    int64        `json:"charge_cents"`
	Diagnoses []string     `json:"diagnoses"`
	Lines     []claimLine  `json:"lines"`
	Others    []otherPayer `json:"other_payers"`

	// Of a stay.
	From          string `json:"statement_from"`
	Through       string `json:"statement_through"`
	Admitted      string `json:"admitted"`
	AdmissionType string `json:"admission_type"`
	PatientStatus string `json:"patient_status"`
	Group         string `json:"drg"`
	CoveredDays   *int64 `json:"covered_days"`
}

type person struct {
	First string `json:"first"`
	Birth string `json:"birth"`
}

type claimLine struct {
	Number    int      `json:"number"`
	Procedure string   `json:"procedure"`
	Modifiers []string `json:"modifiers"`
	Revenue   string   `json:"revenue"`
	Charge    int64    `json:"charge_cents"`
	Quantity  int64    `json:"quantity_milli"`
	Unit      string   `json:"unit"`
	Pointers  []int    `json:"pointers"`
	Emergency bool     `json:"emergency"`
	Date      string   `json:"date"`
	End       string   `json:"end"` // empty: one day
	// Noncovered is what a facility bills as not covered.
	Noncovered int64 `json:"noncovered_cents"`
	// Priors are the answers of the payers before this one, in their order.
	Priors []prior `json:"priors"`
}

type prior struct {
	Paid        int64        `json:"paid_cents"`
	Adjustments []Adjustment `json:"adjustments"`
}

func (l *claimLine) last() string { return max(l.Date, l.End) }

type otherPayer struct {
	Decided bool  `json:"decided"`
	Paid    int64 `json:"paid_cents"`
}

// work is a line being decided.
type work struct {
	claimLine
	out      *LineOutcome
	plan     *plan
	year     string // of the accumulators
	benefit  *benefit
	contract *contract
	schedule *schedule
	tier     string // "in", "in:<the plan's tier>", "out"
	surgical bool
	price    int64
	payable  int64
	again    bool // denied as billed before
	rated    bool // priced by a facility's rate
}

func (w *work) deny(group, carc string) {
	w.out.Denied, w.out.Allowed, w.out.Paid, w.out.Patient = true, 0, 0, 0
	w.out.Adjustments = []Adjustment{{group, carc, w.Charge}}
	if group == "PR" {
		w.out.Patient = w.Charge
	}
}

func (w *work) take(group, carc string, amount int64) {
	if amount != 0 {
		w.out.Adjustments = append(w.out.Adjustments, Adjustment{group, carc, amount})
	}
}

func (w *work) open() bool { return !w.out.Denied }

// round is a×n/d with halves away from zero, for amounts that aren't negative.
func round(a, n, d int64) int64 { return (2*a*n + d) / (2 * d) }

// Decide decides one claim, given as a line of claims.jsonl, and remembers it.
func (m *Model) Decide(text []byte) (Outcome, error) {
	var c claim
	if err := json.Unmarshal(text, &c); err != nil {
		return Outcome{}, err
	}
	out := m.outcome(&c)
	if f := m.families[c.Member]; f != nil && out.Status != "rejected" {
		f.filed = append(f.filed, &c)
	}
	return out, nil
}

// Correct files a replacement (frequency 7) or void (8) of a claim of the
// family and returns what then becomes of every claim that stands: as if they
// had been filed in their order without the original, the replacement last.
// A replacement of which a service is past the filing limit is denied as a
// whole (CO-29), and its original stays as it was.
func (m *Model) Correct(text []byte) (map[string]Outcome, error) {
	var c claim
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	f := m.families[c.Member]
	at := -1
	if f != nil {
		at = slices.IndexFunc(f.filed, func(was *claim) bool { return was.ID == c.Original })
	}
	if at < 0 {
		return nil, errors.New("naive: the original isn't known")
	}
	if c.Frequency == "8" || !m.late(&c, f) {
		f.filed = slices.Delete(f.filed, at, at+1)
	}
	if c.Frequency == "7" {
		f.filed = append(f.filed, &c)
	}
	return m.anew(f), nil
}

// late tells whether a covered service of a claim is past the filing limit.
func (m *Model) late(c *claim, f *family) bool {
	who := f.find(c.Patient)
	return who != nil && slices.ContainsFunc(c.Lines, func(l claimLine) bool {
		p := m.planOn(who, &l)
		return p != nil && days(l.last(), m.received) > p.Filing
	})
}

// Terminate ends a person's coverage, a subscriber's with that of all who
// depend on it and are covered longer, and returns what then becomes of the
// family's claims, in their order.
func (m *Model) Terminate(member, birth, first, end string) (map[string]Outcome, error) {
	f := m.families[member]
	if f == nil {
		return nil, errors.New("naive: nobody has the card")
	}
	who := f.find(person{First: first, Birth: birth})
	if who == nil {
		return nil, errors.New("naive: nobody of the family fits")
	}
	for i := range f.persons {
		e := &f.persons[i]
		if (e == who || who.Relationship == "18") && (e.Coverage.End == "" || e.Coverage.End > end) {
			e.Coverage.End = end
		}
	}
	return m.anew(f), nil
}

// anew decides a family's claims again from nothing, in their order.
func (m *Model) anew(f *family) map[string]Outcome {
	f.used, f.past = map[string]int64{}, nil
	out := map[string]Outcome{}
	for _, was := range f.filed {
		out[was.ID] = m.outcome(was)
	}
	return out
}

// outcome decides a claim on what its family has used so far.
func (m *Model) outcome(c *claim) Outcome {
	out := Outcome{ID: c.ID, Charge: c.Charge}
	var total int64
	for _, l := range c.Lines {
		total += l.Charge
	}
	// The edge refuses what no payer could decide: 277CA A7, A8.
	if !luhn(c.Billing) || total != c.Charge {
		out.Status = "rejected"
		return out
	}
	out.Lines = make([]LineOutcome, len(c.Lines))
	lines := make([]*work, len(c.Lines))
	for i, l := range c.Lines {
		out.Lines[i] = LineOutcome{Number: l.Number, Charge: l.Charge}
		lines[i] = &work{claimLine: l, out: &out.Lines[i]}
	}
	m.decide(c, lines, &out)
	denied := 0
	for i := range out.Lines {
		l := &out.Lines[i]
		if l.Denied {
			denied++
		}
		out.Allowed += l.Allowed
		out.Paid += l.Paid
		out.Patient += l.Patient
	}
	switch {
	case len(out.Pends) > 0:
		return Outcome{ID: c.ID, Charge: c.Charge, Status: "pended", Pends: out.Pends}
	case denied == len(out.Lines):
		out.Status = "denied"
	default:
		out.Status = "paid"
	}
	return out
}

func (m *Model) decide(c *claim, lines []*work, out *Outcome) {
	// Whose claim is it? PR-31 when nobody on the card fits.
	f := m.families[c.Member]
	var who *enrolment
	if f != nil {
		who = f.find(c.Patient)
	}
	if who == nil {
		for _, w := range lines {
			w.deny("PR", "31")
		}
		return
	}
	doubts := m.each(c, f, who, lines)
	used := maps.Clone(f.used)
	m.money(c, f, who, lines)
	for _, d := range doubts {
		// A doubt about what is denied anyway is no doubt.
		if slices.ContainsFunc(lines, func(w *work) bool { return w.open() && (d.line == 0 || d.line == w.Number) }) {
			out.Pends = append(out.Pends, d.why)
		}
	}
	if len(out.Pends) > 0 {
		f.used = used // nothing is decided and nothing is remembered
		return
	}
	m.remember(c, f, who, lines)
}

// doubt is what a person must look at; line 0 is the whole claim.
type doubt struct {
	line int
	why  string
}

func (f *family) find(p person) *enrolment {
	var byBirth []*enrolment
	for i := range f.persons {
		e := &f.persons[i]
		if e.Birth != p.Birth {
			continue
		}
		if strings.EqualFold(e.First, p.First) {
			return e
		}
		byBirth = append(byBirth, e)
	}
	if len(byBirth) == 1 {
		return byBirth[0]
	}
	return nil
}

// each is everything up to the price: what may be paid at all.
func (m *Model) each(c *claim, f *family, who *enrolment, lines []*work) (doubts []doubt) {
	stayed(c, lines)
	// Cover on the days of service: PR-26 before it, PR-27 after it.
	for _, w := range lines {
		if !w.open() {
			continue
		}
		policy := m.policy(who.Policy)
		switch cover := who.Coverage; {
		case w.Date < max(cover.Start, policy.Effective.Start):
			w.deny("PR", "26")
		case !cover.has(w.Date) || !cover.has(w.last()):
			w.deny("PR", "27")
		default:
			w.plan = m.planOn(who, &w.claimLine)
			w.year = planYear(w.plan, who.Coverage.Start, w.Date)
		}
	}
	if c.Frequency == "7" && m.late(c, f) {
		for _, w := range lines {
			if w.open() {
				w.deny("CO", "29")
			}
		}
	}
	// Filed in time: CO-29.
	for _, w := range lines {
		if w.open() && days(w.last(), m.received) > w.plan.Filing {
			w.deny("CO", "29")
		}
	}
	// The same service again: OA-18, the only group that X12 lets CARC 18 have.
	// One field off: a person looks.
	for i, w := range lines {
		if !w.open() {
			continue
		}
		if m.twice(c, lines, i) {
			w.deny("OA", "18")
			w.again = true
			continue
		}
		same, nearly := f.before(c, who, w)
		if same {
			w.deny("OA", "18")
			w.again = true
		} else if nearly {
			doubts = append(doubts, doubt{w.Number, "duplicate"})
		}
	}
	for _, w := range lines {
		if !w.open() {
			continue
		}
		// Modifier 24, 25 or 57 belongs to a visit: CO-4 on surgery, radiology, laboratory.
		if w.Procedure >= "10000" && w.Procedure <= "89999" {
			for _, mod := range w.Modifiers {
				if mod == "24" || mod == "25" || mod == "57" {
					w.deny("CO", "4")
					break
				}
			}
		}
	}
	for _, w := range lines {
		if w.open() {
			m.covered(c, f, who, w)
		}
	}
	m.units(c, f, who, lines)
	doubts = append(doubts, m.pairs(c, f, who, lines)...)
	for _, w := range lines {
		switch {
		case !w.open() || w.Noncovered == 0:
		case w.Noncovered == w.Charge:
			w.deny("PR", "96")
		default:
			w.take("PR", "96", w.Noncovered)
		}
	}
	m.stay(c, lines)
	for _, w := range lines {
		if w.open() && !w.rated {
			m.fees(w)
		}
	}
	// A charge at the plan's threshold is seen by a person.
	for _, w := range lines {
		if w.open() && w.plan.ReviewAbove > 0 && c.Charge >= int64(w.plan.ReviewAbove) {
			return append(doubts, doubt{0, "review"})
		}
	}
	return doubts
}

// covered finds network, benefit and authorisation of one line.
func (m *Model) covered(c *claim, f *family, who *enrolment, w *work) {
	for i := range w.plan.Benefits {
		if w.plan.Benefits[i].fits(c, w) {
			w.benefit = &w.plan.Benefits[i]
			break
		}
	}
	w.contract = m.contractFor(c, w)
	w.tier = "in"
	inside := w.contract != nil
	if len(w.plan.Networks) > 0 {
		// The network says who is in; a contract is for those.
		if inside = m.takesPart(c, w); !inside && !w.Emergency {
			w.contract = nil
		}
	}
	// An emergency out of network is treated as in it since 2022 (45 CFR 149.110).
	if !inside && !w.Emergency {
		w.tier = "out"
		if w.plan.Out == nil {
			w.deny("CO", "242")
			return
		}
	}
	if w.tier == "in" {
		w.tier = m.costTier(c, w)
	}
	switch b := w.benefit; {
	case b != nil && w.plan.Referral && b.Specialist && !w.Emergency && c.Referral == "":
		w.deny("CO", "288")
		return
	case b == nil:
		w.deny("PR", "204")
		return
	case !b.Covered:
		w.deny("PR", "96")
		return
	case (b.Authorization || within(w.plan.Authorize, w.Procedure)) && !w.Emergency:
		if carc := f.authorized(c, who, w); carc != "" {
			w.deny("CO", carc)
			return
		}
	}
	for _, r := range w.plan.Rules {
		if slices.Contains(r.Benefits, w.benefit.Name) && clauses[r.ID](c, who, w) {
			w.deny(r.Group, r.CARC)
			return
		}
	}
}

// takesPart: the biller or the renderer is in one of the plan's networks on
// the day, in a tier that the plan takes.
func (m *Model) takesPart(c *claim, w *work) bool {
	for _, use := range w.plan.Networks {
		if m.isIn(c, w, use.ID, use.Tiers) {
			return true
		}
	}
	return false
}

// isIn: the biller or the renderer is in one of a network's tiers on the day.
func (m *Model) isIn(c *claim, w *work, network string, tiers []string) bool {
	for _, n := range m.networks {
		if n.ID != network || !n.Effective.has(w.Date) {
			continue
		}
		for _, p := range n.Participants {
			named := p.NPI != "" && (p.NPI == c.Billing || p.NPI == rendering(c)) || p.TIN != "" && p.TIN == c.TaxID
			if named && p.Days.has(w.Date) && (len(tiers) == 0 || slices.Contains(tiers, p.Tier)) {
				return true
			}
		}
	}
	return false
}

// costTier: the first of the plan's tiers with somebody in it who treats.
func (m *Model) costTier(c *claim, w *work) string {
	for _, t := range w.plan.Tiers {
		for _, who := range t.Who {
			if m.isIn(c, w, who.ID, who.Tiers) {
				return "in:" + t.Name
			}
		}
	}
	return "in"
}

// fees: the lesser of charge and contract.
func (m *Model) fees(w *work) {
	id, bps := w.plan.FeeSchedule, int64(10000)
	if w.contract != nil {
		if w.contract.Capitated {
			w.deny("CO", "24")
			return
		}
		id = w.contract.Schedule
		if w.contract.Bps != 0 {
			bps = int64(w.contract.Bps)
		}
	} else if w.tier == "out" && w.plan.OutAllowedBps != 0 {
		bps = int64(w.plan.OutAllowedBps)
	}
	for i := range m.schedules {
		if m.schedules[i].ID == id && m.schedules[i].Effective.has(w.Date) {
			w.schedule = &m.schedules[i]
		}
	}
	price := w.schedule.fee(w.Procedure, w.Modifiers)
	quantity, charge := w.Quantity, w.billable()
	group := "CO"
	if w.tier == "out" {
		group = "PR" // nobody has agreed to write it off
	}
	switch {
	case price == nil && w.schedule.Default == 0:
		w.deny("CO", "147")
		return
	case price == nil:
		w.price = min(charge, round(charge, int64(w.schedule.Default)*bps, 10000*10000))
	default:
		if most := int64(price.MaxUnits) * 1000; most > 0 && quantity > most {
			over := round(charge, quantity-most, quantity)
			w.take("CO", "222", over)
			quantity, charge = most, charge-over
		}
		w.price = min(charge, round(int64(price.Amount), quantity*bps, 1000*10000))
		if price.Base > 0 {
			w.price = min(charge, anesthesia(price, w, bps))
		}
		w.surgical = price.Surgical
	}
	if price != nil && price.Base > 0 {
		less := min(w.price, directed(price, w, bps))
		w.take(group, "45", charge-w.price)
		w.take("CO", "59", w.price-less)
		w.price = less
		w.out.Allowed, w.payable = less, quantity
		return
	}
	w.take(group, "45", charge-w.price)
	w.out.Allowed, w.payable = w.price, quantity
}

func (s *schedule) fee(procedure string, modifiers []string) *fee {
	for _, mod := range append(slices.Clone(modifiers), "") {
		for i := range s.Fees {
			if s.Fees[i].Procedure == procedure && s.Fees[i].Modifier == mod && procedure != "" {
				return &s.Fees[i]
			}
		}
	}
	return nil
}

// planOn is the plan that covers a person on a line's days; nil where none does.
func (m *Model) planOn(who *enrolment, l *claimLine) *plan {
	policy := m.policy(who.Policy)
	if l.Date < policy.Effective.Start || !who.Coverage.has(l.Date) || !who.Coverage.has(l.last()) {
		return nil
	}
	var found *plan
	for i := range m.plans {
		if m.plans[i].ID == policy.Plan && m.plans[i].Effective.has(l.Date) {
			found = &m.plans[i]
		}
	}
	return found
}

func (m *Model) policy(id string) policy {
	for _, p := range m.policies {
		if p.ID == id {
			return p
		}
	}
	return policy{}
}

// contractFor: the billing provider's contract before the rendering one's,
// one made for the plan before one for all.
func (m *Model) contractFor(c *claim, w *work) *contract {
	for _, npi := range []string{c.Billing, c.Rendering} {
		for _, own := range []bool{true, false} {
			for i := range m.contracts {
				k := &m.contracts[i]
				if npi != "" && slices.Contains(k.NPIs, npi) && k.Effective.has(w.Date) && (len(k.Plans) > 0) == own &&
					(!own || slices.Contains(k.Plans, w.plan.ID)) {
					return k
				}
			}
		}
	}
	return nil
}

func (b *benefit) fits(c *claim, w *work) bool {
	return (len(b.Match.Procedures) == 0 || within(b.Match.Procedures, w.Procedure)) &&
		(len(b.Match.Places) == 0 || slices.Contains(b.Match.Places, c.Place)) &&
		(len(b.Match.Revenues) == 0 || within(b.Match.Revenues, w.Revenue))
}

func within(ranges []string, code string) bool {
	for _, r := range ranges {
		from, to, ok := strings.Cut(r, "-")
		if !ok {
			to = from
		}
		if len(code) == len(from) && code >= from && code <= to {
			return true
		}
	}
	return false
}

func planYear(p *plan, covered, day string) string {
	if p.Year == "calendar" {
		return day[:4]
	}
	if day[5:] >= covered[5:] {
		return day[:4] + covered[4:]
	}
	return before(day[:4]) + covered[4:]
}

func before(year string) string {
	t, _ := time.Parse("2006", year)
	return t.AddDate(-1, 0, 0).Format("2006")
}

func days(from, to string) int {
	a, _ := time.Parse(time.DateOnly, from)
	b, _ := time.Parse(time.DateOnly, to)
	return int(b.Sub(a).Hours() / 24)
}

// luhn checks an NPI: Luhn over 80840 and the ten digits, 45 CFR 162.406.
func luhn(npi string) bool {
	if len(npi) != 10 {
		return false
	}
	digits := "80840" + npi
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			d = d*2/10 + d*2%10
		}
		sum += d
	}
	return sum%10 == 0
}
