package adjudication

import (
	"slices"

	"github.com/probity-health/probity/services/money"
)

// timeUnits turns anaesthesia minutes, in thousandths, into payable units of
// fifteen minutes, in thousandths, to the nearest tenth of a unit (CMS Claims
// Processing Manual, chapter 12, section 50.G).
func timeUnits(minutesMilli int64) int64 { return (minutesMilli*10 + 7500) / 15000 * 100 }

// supervisedBaseUnits is what a physician is paid for who supervises more than
// four procedures at once (modifier AD), whatever the time (section 50.D).
const supervisedBaseUnits = 3

// anesthesia is what one anaesthesia service is worth: base units of the
// procedure and units of time at the conversion factor, and less than that
// where the anaesthetist directed others or was directed (section 50.C, D).
func anesthesia(fee *Fee, modifiers []string, quantity, bps int64) (full, concurrent money.Cents) {
	full = portion(fee.Amount, (fee.BaseUnits*1000+quantity)*bps, 1000*whole)
	switch {
	case slices.Contains(modifiers, "AD"):
		return full, min(full, portion(fee.Amount, supervisedBaseUnits*bps, whole))
	case slices.ContainsFunc(modifiers, medicallyDirected):
		return full, portion(full, 1, 2)
	}
	return full, full
}

// medicallyDirected: QK and QY for the physician who directs, QX for the
// nurse anaesthetist or assistant who is directed. Each is paid half.
func medicallyDirected(modifier string) bool {
	return modifier == "QK" || modifier == "QX" || modifier == "QY"
}
