package sample

// Outcome is what becomes of one claim of ClaimsFile. Status, allowed and paid
// were worked out by hand from the plans, fees and contracts in data, and the
// engine has to agree; the patient's share of SMPL-0003, -0004, -0011 and
// -0013 was taken from the engine and then checked: charge less paid.
type Outcome struct {
	ControlNumber string // CLM01
	Status        string // "paid", "denied", "pended", "rejected"
	ChargeCents   int64
	AllowedCents  int64
	PaidCents     int64
	PatientCents  int64    // sum of PR adjustments, denials and balance billing among them
	Codes         []string // "group-CARC" that must appear; amounts under contract (CO-45) left out
	Why           string
}

// Outcomes lists the file's claims in its order. The amounts hold when the
// claims of a family are decided in that order and the sample is fresh.
func Outcomes() []Outcome {
	return []Outcome{
		{"SMPL-0001", "paid", 22000, 13700, 8500, 5200, []string{"PR-3", "PR-1"},
			"visit at a $25 copay; $27 of laboratory tests fall under the deductible"},
		{"SMPL-0002", "paid", 21000, 17500, 17500, 0, nil,
			"preventive care is paid in full"},
		{"SMPL-0003", "denied", 15000, 0, 0, 15000, []string{"PR-27"},
			"coverage ended on 2026-01-31, the visit was on 2026-02-17"},
		{"SMPL-0004", "denied", 18500, 0, 0, 18500, []string{"PR-31"},
			"nobody is enrolled under this card"},
		{"SMPL-0005", "denied", 19000, 0, 0, 0, []string{"CO-29"},
			"received after the plan's 45 days"},
		{"SMPL-0006", "paid", 11000, 3800, 1800, 2000, []string{"PR-3", "OA-18"},
			"the second line repeats the first"},
		{"SMPL-0007", "paid", 13000, 9000, 7500, 1500, []string{"PR-3"},
			"HMO visit at a $15 copay"},
		{"SMPL-0008", "paid", 199500, 71550, 39400, 32150, []string{"PR-1", "PR-2"},
			"nine tenths of the fees: $40.50 and $675.00; $223 of deductible left, then 20 %"},
		{"SMPL-0009", "paid", 64000, 37800, 10240, 27560, []string{"PR-1", "PR-2"},
			"authorised; the spouse's own $250 deductible meets the family's, then 20 %"},
		{"SMPL-0010", "denied", 64000, 0, 0, 0, []string{"CO-197"},
			"no prior authorisation"},
		{"SMPL-0011", "denied", 240000, 0, 0, 240000, []string{"PR-96"},
			"cosmetic surgery is not covered"},
		{"SMPL-0012", "pended", 620000, 0, 0, 0, nil,
			"the charge is at least the plan's $5,000 review limit"},
		{"SMPL-0013", "paid", 190000, 60000, 6000, 184000, []string{"PR-1", "PR-2", "PR-45"},
			"out of network: 80 % of $750, less the $500 deductible, less 40 %; the rest of the charge is billed to the patient"},
		{"SMPL-0014", "denied", 18000, 0, 0, 0, []string{"CO-242"},
			"the HMO covers nothing out of network"},
		{"SMPL-0015", "rejected", 15000, 0, 0, 0, []string{"A7"},
			"the billing provider's NPI fails its check digit"},
	}
}
