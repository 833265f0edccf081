package generate

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/probity-health/probity/services/money"
)

// setClaims is how many claims one transaction set holds: the guide's advice.
const setClaims = 5000

// Writer writes one 837 interchange as claims come. Segments end with "~" and
// a new line; nothing of earlier claims is kept.
type Writer struct {
	out     *bufio.Writer
	err     error
	form    string // "P" or "I"
	control int
	asOf    time.Time

	sets, inSet int
	segments    int
	hl, billing int
	npi         string
}

// NewWriter begins an interchange of professional ("P") or institutional
// ("I") claims. Close ends it.
func (w *World) NewWriter(out io.Writer, form string) *Writer {
	x := &Writer{out: bufio.NewWriterSize(out, 64<<10), form: form, control: w.o.Control, asOf: w.o.AsOf}
	date := x.asOf.Format("20060102")
	x.seg("ISA*00*          *00*          *ZZ*GENERATOR      *ZZ*PROBITY        *%s*0900*^*00501*%09d*0*T*:", date[2:], x.interchange())
	x.seg("GS*HC*GENERATOR*PROBITY*%s*0900*%d*X*%s", date, x.interchange(), x.guide())
	return x
}

// interchange tells the two files of a world apart.
func (x *Writer) interchange() int {
	if x.form == "I" {
		return 2*x.control + 1
	}
	return 2 * x.control
}

func (x *Writer) guide() string {
	if x.form == "I" {
		return "005010X223A2"
	}
	return "005010X222A1"
}

func (x *Writer) seg(format string, args ...any) {
	if x.err == nil {
		_, x.err = fmt.Fprintf(x.out, format+"~\n", args...)
	}
	x.segments++
}

// Close ends the interchange. One without claims is no 837; Empty tells.
func (x *Writer) Close() error {
	x.endSet()
	x.seg("GE*%d*%d", x.sets, x.interchange())
	x.seg("IEA*1*%09d", x.interchange())
	if x.err != nil {
		return x.err
	}
	return x.out.Flush()
}

func (x *Writer) beginSet() {
	x.sets++
	x.segments, x.hl, x.npi, x.inSet = 0, 0, "", 0
	x.seg("ST*837*%04d*%s", x.sets, x.guide())
	x.seg("BHT*0019*00*%d-%d*%s*0900*CH", x.interchange(), x.sets, x.asOf.Format("20060102"))
	x.seg("NM1*41*2*GENERATED CLAIMS*****46*GENERATOR")
	x.seg("PER*IC*SUPPORT*TE*5550100000")
	x.seg("NM1*40*2*%s*****46*PROBITY", PayerName)
}

func (x *Writer) endSet() {
	if x.sets > 0 {
		x.seg("SE*%d*%04d", x.segments+1, x.sets)
	}
}

// Claim writes one claim.
func (x *Writer) Claim(c *Claim) error {
	if x.sets == 0 || x.inSet == setClaims {
		x.endSet()
		x.beginSet()
	}
	x.inSet++
	if c.BillingNPI != x.npi {
		x.hl++
		x.billing, x.npi = x.hl, c.BillingNPI
		x.seg("HL*%d**20*1", x.hl)
		x.seg("PRV*BI*PXC*%s", c.Taxonomy)
		x.seg("NM1*85*2*%s*****XX*%s", c.billing.name, c.BillingNPI)
		x.seg("N3*1 GENERATED WAY")
		x.seg("N4*COLUMBUS*OH*432150001")
		x.seg("REF*EI*%s", c.billing.taxID)
	}
	x.persons(c)
	x.head(c)
	for i := range c.Lines {
		x.line(c, &c.Lines[i])
	}
	return x.err
}

func compact(date string) string { return strings.ReplaceAll(date, "-", "") }

func (x *Writer) persons(c *Claim) {
	x.hl++
	self := c.Relationship == "18"
	if self {
		x.seg("HL*%d*%d*22*0", x.hl, x.billing)
		x.seg("SBR*%s*18*******CI", c.Sequence)
	} else {
		x.seg("HL*%d*%d*22*1", x.hl, x.billing)
		x.seg("SBR*%s********CI", c.Sequence)
	}
	s := c.Subscriber
	x.seg("NM1*IL*1*%s*%s****MI*%s", strings.ToUpper(s.Last), strings.ToUpper(s.First), c.MemberID)
	if self {
		x.seg("N3*2 GENERATED WAY")
		x.seg("N4*COLUMBUS*OH*432150001")
		x.seg("DMG*D8*%s*%s", compact(s.Birth), s.Sex)
	}
	x.seg("NM1*PR*2*%s*****PI*%s", PayerName, PayerID)
	if self {
		return
	}
	subscriber := x.hl
	x.hl++
	x.seg("HL*%d*%d*23*0", x.hl, subscriber)
	x.seg("PAT*%s", c.Relationship)
	x.seg("NM1*QC*1*%s*%s", strings.ToUpper(c.Patient.Last), strings.ToUpper(c.Patient.First))
	x.seg("N3*2 GENERATED WAY")
	x.seg("N4*COLUMBUS*OH*432150001")
	x.seg("DMG*D8*%s*%s", compact(c.Patient.Birth), c.Patient.Sex)
}

func (x *Writer) head(c *Claim) {
	first, last := c.Lines[0].Date, c.Lines[0].Date
	for _, l := range c.Lines {
		first, last = min(first, l.Date), max(last, l.Date)
	}
	if c.Form == "I" {
		x.seg("CLM*%s*%s***%s:A:%s**A*Y*Y", c.ID, amount(c.Charge), c.Facility, c.Frequency)
		if c.stay() {
			x.seg("DTP*434*RD8*%s-%s", compact(c.From), compact(c.Through))
			if c.Admitted != "" {
				x.seg("DTP*435*D8*%s", compact(c.Admitted))
			}
			x.seg("CL1*%s*%s*%s", c.AdmissionType, c.AdmissionSource, c.PatientStatus)
		} else {
			x.seg("DTP*434*RD8*%s-%s", compact(first), compact(last))
			x.seg("CL1*1*1*01")
		}
	} else {
		causes := ""
		if c.Accident != "" {
			causes = "**" + c.Accident
			if c.Accident == "AA" {
				causes += ":::OH"
			}
		}
		x.seg("CLM*%s*%s***%s:B:%s*Y*A*Y*Y%s", c.ID, amount(c.Charge), c.Place, c.Frequency, causes)
		if c.Accident != "" {
			x.seg("DTP*439*D8*%s", compact(first))
		}
	}
	if c.Referral != "" {
		x.seg("REF*9F*%s", c.Referral)
	}
	if c.Auth != "" {
		x.seg("REF*G1*%s", c.Auth)
	}
	if c.Original != "" {
		x.seg("REF*F8*%s", c.Original)
	}
	x.diagnoses(c)
	if c.Form == "P" && c.ReferringNPI != "" {
		x.seg("NM1*DN*1*REFERRER*ROBIN****XX*%s", c.ReferringNPI)
	}
	if c.Form == "I" {
		x.seg("NM1*71*1*ATTENDING*ALEX****XX*%s", attendingNPI)
	} else if c.RenderingNPI != "" {
		x.seg("NM1*82*1*RENDERER*RENE****XX*%s", c.RenderingNPI)
	}
	earlier := int64(0)
	for i := range c.Others {
		x.other(c, &c.Others[i], earlier)
		earlier += c.Others[i].Paid
	}
}

// attendingNPI attends every hospital claim; payment doesn't rest on it.
var attendingNPI = npi(19_000_000)

func (x *Writer) diagnoses(c *Claim) {
	if c.Form == "I" {
		x.seg("HI*ABK:%s", c.Diagnoses[0])
		if c.DRG != "" {
			x.seg("HI*DR:%s", c.DRG)
		}
		if len(c.Diagnoses) > 1 {
			x.seg("HI*ABF:%s", strings.Join(c.Diagnoses[1:], "*ABF:"))
		}
		if c.CoveredDays != nil {
			x.seg("HI*BE:80:::%d", *c.CoveredDays)
		}
		return
	}
	x.seg("HI*ABK:%s", strings.Join(c.Diagnoses, "*ABF:"))
}

// other writes one of the payers that decide before; earlier is what those
// before it have paid of the whole claim.
func (x *Writer) other(c *Claim, o *OtherPayer, earlier int64) {
	x.seg("SBR*%s*%s*******CI", o.Sequence, c.Relationship)
	whole := o.Decided && !slices.ContainsFunc(c.Lines, func(l Line) bool { return len(l.Priors) > 0 })
	if whole && earlier > 0 {
		x.seg("CAS*OA*23*%s", amount(earlier))
	}
	if rest := c.Charge - earlier - o.Paid; whole && rest > 0 {
		x.seg("CAS*PR*2*%s", amount(rest))
	}
	if o.Decided {
		x.seg("AMT*D*%s", amount(o.Paid))
	}
	x.seg("OI***Y***Y")
	x.seg("NM1*IL*1*%s*%s****MI*T%s", strings.ToUpper(c.Subscriber.Last), strings.ToUpper(c.Subscriber.First), c.MemberID)
	x.seg("NM1*PR*2*%s*****PI*%s", o.Name, o.ID)
	if whole {
		x.seg("DTP*573*D8*%s", compact(o.Date))
	}
}

func (x *Writer) line(c *Claim, l *Line) {
	x.seg("LX*%d", l.Number)
	code := ""
	if l.Procedure != "" {
		code = strings.Join(append([]string{"HC", l.Procedure}, l.Modifiers...), ":")
	}
	if c.Form == "I" {
		noncovered := ""
		if l.Noncovered > 0 {
			noncovered = "**" + amount(l.Noncovered)
		}
		x.seg("SV2*%s*%s*%s*%s*%s%s", l.Revenue, code, amount(l.Charge), l.Unit, quantity(l.Quantity), noncovered)
	} else {
		points := make([]string, len(l.Pointers))
		for i, p := range l.Pointers {
			points[i] = fmt.Sprint(p)
		}
		emergency := ""
		if l.Emergency {
			emergency = "**Y"
		}
		x.seg("SV1*%s*%s*%s*%s***%s%s", code, amount(l.Charge), l.Unit, quantity(l.Quantity), strings.Join(points, ":"), emergency)
	}
	if l.End == "" { // a stay's lines are dated by its statement
		x.seg("DTP*472*D8*%s", compact(l.Date))
	}
	x.seg("REF*6R*%s-%d", c.ID, l.Number)
	for _, p := range l.Priors {
		if c.Form == "I" {
			x.seg("SVD*%s*%s*%s*%s*%s", p.Payer, amount(p.Paid), code, l.Revenue, quantity(l.Quantity))
		} else {
			x.seg("SVD*%s*%s*%s**%s", p.Payer, amount(p.Paid), code, quantity(l.Quantity))
		}
		for _, a := range p.Adjustments {
			x.seg("CAS*%s*%s*%s", a.Group, a.CARC, amount(a.Amount))
		}
		x.seg("DTP*573*D8*%s", compact(p.Date))
	}
}

func amount(cents int64) string { return money.Cents(cents).X12() }

func quantity(milli int64) string {
	if milli%1000 == 0 {
		return fmt.Sprint(milli / 1000)
	}
	return strings.TrimRight(fmt.Sprintf("%d.%03d", milli/1000, milli%1000), "0")
}
