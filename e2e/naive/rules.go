package naive

import (
	"slices"
	"strings"
)

// clauses are the generated plans' own rules, as their wording has them: true
// where the line is not covered.
var clauses = map[string]func(*claim, *enrolment, *work) bool{
	// Equipment is covered from the 600th day of coverage on.
	"equipment_waiting": func(_ *claim, who *enrolment, w *work) bool { return days(who.Coverage.Start, w.Date) < 600 },
	// Chiropractic care is covered for segmental dysfunction (M99) only.
	"spinal_only": func(c *claim, _ *enrolment, w *work) bool {
		return !slices.ContainsFunc(w.Pointers, func(p int) bool { return strings.HasPrefix(c.Diagnoses[p-1], "M99") })
	},
}

// Anaesthesia, Medicare Claims Processing Manual, chapter 12, section 50.

// units are the procedure's base units and those of time, in tenths: fifteen
// minutes are one, to one decimal place (50.G).
func units(price *fee, w *work) int64 {
	minutes := w.Quantity / 1000
	return int64(price.Base)*10 + (minutes*20+15)/30
}

// anesthesia is the whole service at the conversion factor.
func anesthesia(price *fee, w *work, bps int64) int64 {
	return round(int64(price.Amount), units(price, w)*bps, 10*10000)
}

// directed is what is paid where the anaesthetist directed others or was
// directed (half, 50.C), or supervised more than four at once (three base
// units, 50.D).
func directed(price *fee, w *work, bps int64) int64 {
	full := min(w.Charge, anesthesia(price, w, bps))
	switch {
	case slices.Contains(w.Modifiers, "AD"):
		return min(full, round(int64(price.Amount), 3*bps, 10000))
	case slices.ContainsFunc(w.Modifiers, func(m string) bool { return m == "QK" || m == "QX" || m == "QY" }):
		return round(anesthesia(price, w, bps), 1, 2)
	}
	return full
}
