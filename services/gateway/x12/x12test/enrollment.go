package x12test

import (
	"bytes"
	"fmt"
)

// Enrollment returns an 834 interchange of one transaction set holding the
// given members' segments, each from INS on, sent by a sponsor to KEYSTONE.
func Enrollment(members ...[]string) []byte {
	body := []string{
		"BGN*00*ENR0001*20261121*0900*ET***2", "REF*38*MASTER1", "DTP*007*D8*20260101",
		"N1*P5*TIDEWATER BOATS*FI*999888777", "N1*IN*KEYSTONE HEALTH*FI*KEYSTONE",
	}
	for _, m := range members {
		body = append(body, m...)
	}
	return bytes.Replace(Interchange("000000834", "834", "005010X220A1", body), []byte("GS*HC*"), []byte("GS*BE*"), 1)
}

// Addition returns the segments of a person added to the card from 2026-01-01:
// relation is INS02 ("18" is the subscriber).
func Addition(card, relation, last, first, born string) []string {
	insured := "N"
	if relation == "18" {
		insured = "Y"
	}
	return []string{
		fmt.Sprintf("INS*%s*%s*021*28*A***FT", insured, relation), "REF*0F*" + card, "REF*1L*TIDE-100", "DTP*336*D8*20200101",
		"NM1*IL*1*" + last + "*" + first, "N3*1 WHARF RD", "N4*NORFOLK*VA*23510", "DMG*D8*" + born + "*F",
		"HD*021**HLT*plan_gold*FAM", "DTP*348*D8*20260101",
	}
}
