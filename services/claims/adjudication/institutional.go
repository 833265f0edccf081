package adjudication

// outpatient tells whether an institutional claim is for outpatient services:
// by its type of bill, whose second digit of facility and care is 3 or more
// for anything that isn't a stay (NUBC: 13 hospital outpatient, 14 other,
// 83 ambulatory surgery …). Without a type of bill it is a stay where a line
// bills a room.
func (c *Claim) outpatient() bool {
	return len(c.TypeOfBill) >= 2 && c.TypeOfBill[1] >= '3'
}
