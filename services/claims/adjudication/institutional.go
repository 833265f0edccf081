package adjudication

import (
	"strings"

	"github.com/probity-health/probity/services/codes"
)

// institutional denies a facility's claim that lacks what every institutional
// claim must say: type of bill, statement period, who attends, and for a stay
// the admission and how it ended (837I, CLM05, DTP*434, DTP*435, CL1, 2310A;
// NUBC, UB-04).
func institutional(r *run) {
	c := &r.in.Claim
	if c.Form != Institutional {
		return
	}
	stay := c.stay()
	switch {
	case !validTypeOfBill(c.TypeOfBill):
		r.denyAll(institutionalTypeOfBill)
	case c.StatementFrom == 0 || c.StatementThrough < c.StatementFrom:
		r.denyAll(institutionalStatement)
	case stay && c.AdmissionDate == 0, c.AdmissionDate > c.StatementThrough:
		r.denyAll(institutionalAdmissionDate)
	case stay && c.AdmissionType == "":
		r.denyAll(institutionalAdmissionType)
	case stay && c.AdmissionSource == "" && c.AdmissionType != "4": // a newborn's is the birth itself
		r.denyAll(institutionalAdmissionSource)
	case c.PatientStatus == "":
		r.denyAll(institutionalPatientStatus)
	case c.AttendingNPI == "" && !c.transportOnly():
		r.denyAll(institutionalAttending)
	case c.AttendingNPI != "" && !codes.ValidNPI(c.AttendingNPI):
		r.denyAll(institutionalAttendingInvalid)
	default:
		r.withinStatement()
		r.coveredDays(stay)
	}
}

// withinStatement denies lines that lie outside the period billed.
func (r *run) withinStatement() {
	c := &r.in.Claim
	for i := range r.lines {
		l := &r.lines[i]
		if l.open() && (l.ServiceDate < c.StatementFrom || l.last() > c.StatementThrough) {
			r.deny(l, institutionalOutside, "", Fact{"statement_from_date", int64(c.StatementFrom)}, Fact{"statement_through_date", int64(c.StatementThrough)})
		}
	}
}

// coveredDays compares the days of room and board with the days of the
// statement, the day of discharge not among them, and with value code 80.
func (r *run) coveredDays(stay bool) {
	c := &r.in.Claim
	if !stay {
		return
	}
	days := int64(c.StatementThrough - c.StatementFrom)
	if days == 0 || c.PatientStatus == stillPatient {
		days++
	}
	var billed int64
	for i := range r.lines {
		if l := &r.lines[i]; l.accommodation() {
			billed += l.QuantityMilli
		}
	}
	if billed <= days*1000 && (c.CoveredDays < 0 || billed <= c.CoveredDays*1000) {
		return
	}
	for i := range r.lines {
		if l := &r.lines[i]; l.open() && l.accommodation() {
			r.deny(l, institutionalDays, "", Fact{"billed_days_milli", billed}, Fact{"statement_days", days}, Fact{"covered_days", c.CoveredDays})
		}
	}
}

// stillPatient is the patient status of a stay that goes on (NUBC).
const stillPatient = "30"

// accommodation tells whether a line bills room and board: revenue codes 0100
// to 0219.
func (l *line) accommodation() bool {
	code := fullRevenueCode(l.RevenueCode)
	return len(code) == 4 && code >= "0100" && code <= "0219"
}

// validTypeOfBill: facility, care and frequency (NUBC, form locator 4).
func validTypeOfBill(t string) bool {
	return len(t) == 3 && t[0] >= '1' && t[0] <= '8' && t[1] >= '1' && t[1] <= '9' &&
		(t[2] >= '0' && t[2] <= '9' || t[2] >= 'A' && t[2] <= 'Z')
}

// stay tells whether the claim is for a stay: inpatient care, or a swing bed.
func (c *Claim) stay() bool {
	return len(c.TypeOfBill) >= 2 && (c.TypeOfBill[1] == '1' || c.TypeOfBill[:2] == "18" || c.TypeOfBill[:2] == "28")
}

// outpatient tells whether the claim meets the outpatient hospital's edits.
func (c *Claim) outpatient() bool { return len(c.TypeOfBill) >= 2 && !c.stay() }

// transportOnly: a claim of ambulance services alone names nobody who attends.
func (c *Claim) transportOnly() bool {
	for i := range c.Lines {
		if !strings.HasPrefix(fullRevenueCode(c.Lines[i].RevenueCode), "054") {
			return false
		}
	}
	return true
}

// noncovered takes off what the facility itself bills as not covered (SV207).
func noncovered(r *run, l *line) {
	off := min(max(l.Noncovered, 0), l.Charge)
	switch off {
	case 0:
	case l.Charge:
		r.deny(l, institutionalNoncovered, "")
	default:
		l.billable = l.Charge - off
		r.adjust(l, institutionalNoncovered, off, "", Fact{"noncovered_cents", int64(off)})
	}
}
