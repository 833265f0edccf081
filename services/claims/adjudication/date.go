package adjudication

import (
	"fmt"
	"time"
)

// Date is a calendar day without a zone: day 1 is 0001-01-01, and the zero
// Date is "not given". Days are what benefits are judged by; an instant would
// move a service into another plan year when a server's zone changed.
type Date int32

// unixDay is the Date of 1970-01-01.
const unixDay = 719163

// DateOf returns the Date of a calendar day; out-of-range months and days
// carry over as in package time.
func DateOf(year int, month time.Month, day int) Date {
	return Date(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix()/86400 + unixDay)
}

// ParseDate reads an ISO 8601 calendar date, "2026-11-21". The empty string
// is the zero Date, as in the protos; anything else that isn't a real day of
// the years 1 to 9999 is refused.
func ParseDate(s string) (Date, error) {
	if s == "" {
		return 0, nil
	}
	if len(s) != 10 || s[4] != '-' || s[7] != '-' {
		return 0, errDate
	}
	year, okY := number(s[:4])
	month, okM := number(s[5:7])
	day, okD := number(s[8:])
	if !okY || !okM || !okD || year < 1 || month < 1 || month > 12 || day < 1 {
		return 0, errDate
	}
	d := DateOf(year, time.Month(month), day)
	if y, m, back := d.civil(); y != year || int(m) != month || back != day {
		return 0, errDate
	}
	return d, nil
}

var errDate = fmt.Errorf("adjudication: not an ISO 8601 calendar date (YYYY-MM-DD)")

func number(s string) (n int, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

// String formats as ISO 8601; the zero Date is the empty string.
func (d Date) String() string {
	if d == 0 {
		return ""
	}
	y, m, day := d.civil()
	if y < 0 || y > 9999 {
		return fmt.Sprintf("%04d-%02d-%02d", y, int(m), day)
	}
	text := [10]byte{4: '-', 7: '-'}
	for i := 3; i >= 0; i-- {
		text[i], y = byte('0'+y%10), y/10
	}
	text[5], text[6] = byte('0'+m/10), byte('0'+m%10)
	text[8], text[9] = byte('0'+day/10), byte('0'+day%10)
	return string(text[:])
}

func (d Date) civil() (year int, month time.Month, day int) {
	return time.Unix((int64(d)-unixDay)*86400, 0).UTC().Date()
}

// Period is a span of days, both ends included; a zero End is open.
type Period struct {
	Start Date
	End   Date
}

// Contains tells whether the day lies in the period.
func (p Period) Contains(d Date) bool { return d >= p.Start && (p.End == 0 || d <= p.End) }
