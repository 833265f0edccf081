package generate

// Claim is a claim as its sender means it, in plain terms: what the 837
// carries and what a model decides. Amounts are US cents, dates ISO 8601,
// quantities thousandths.
type Claim struct {
	ID   string `json:"id"`   // CLM01
	Kind string `json:"kind"` // why it was made, for people; no model may read it
	Form string `json:"form"` // "P" or "I"

	MemberID   string `json:"member_id"`
	Subscriber Person `json:"subscriber"`
	// Patient is who was treated; the subscriber where Relationship is 18.
	Patient      Person `json:"patient"`
	Relationship string `json:"relationship"`

	BillingNPI string `json:"billing_npi"`
	// Taxonomy of who bills: it chooses the tables of claim edits.
	Taxonomy     string `json:"billing_taxonomy"`
	TaxID        string `json:"billing_tax_id"`
	RenderingNPI string `json:"rendering_npi,omitempty"`
	ReferringNPI string `json:"referring_npi,omitempty"`
	Referral     string `json:"referral,omitempty"`
	Auth         string `json:"authorization,omitempty"`

	Place     string       `json:"place,omitempty"`         // place of service of a professional claim
	Facility  string       `json:"facility_type,omitempty"` // type of bill, two digits, of an institutional one
	Frequency string       `json:"frequency"`
	Original  string       `json:"original,omitempty"` // the payer's number of the claim it replaces or voids
	Sequence  string       `json:"sequence"`           // P, S or T
	Charge    int64        `json:"charge_cents"`
	Accident  string       `json:"accident,omitempty"` // AA, EM, OA
	Diagnoses []string     `json:"diagnoses"`
	Lines     []Line       `json:"lines"`
	Others    []OtherPayer `json:"other_payers,omitempty"` // in the order in which they decide

	// Of a stay: the days it bills, how it began and ended, its group.
	From            string `json:"statement_from,omitempty"`
	Through         string `json:"statement_through,omitempty"`
	Admitted        string `json:"admitted,omitempty"`
	AdmissionType   string `json:"admission_type,omitempty"`
	AdmissionSource string `json:"admission_source,omitempty"`
	PatientStatus   string `json:"patient_status,omitempty"`
	DRG             string `json:"drg,omitempty"`
	CoveredDays     *int64 `json:"covered_days,omitempty"` // value code 80

	billing provider
}

// Person is a member or patient. Invented.
type Person struct {
	First string `json:"first"`
	Last  string `json:"last"`
	Birth string `json:"birth"`
	Sex   string `json:"sex"`
}

// Line is one service.
type Line struct {
	Number    int      `json:"number"`
	Procedure string   `json:"procedure,omitempty"`
	Modifiers []string `json:"modifiers,omitempty"`
	Revenue   string   `json:"revenue,omitempty"`
	Charge    int64    `json:"charge_cents"`
	Unit      string   `json:"unit"`
	Quantity  int64    `json:"quantity_milli"`
	Pointers  []int    `json:"pointers,omitempty"`
	Emergency bool     `json:"emergency,omitempty"`
	Date      string   `json:"date"`
	// End is the last day of a line of several; a stay's lines have its days.
	End        string `json:"end,omitempty"`
	Noncovered int64  `json:"noncovered_cents,omitempty"` // SV207
	// Priors are other payers' answers on the line, in their order.
	Priors []Prior `json:"priors,omitempty"`
}

// OtherPayer is a payer that decides before this one.
type OtherPayer struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Sequence string `json:"sequence"`
	Decided  bool   `json:"decided"`
	Paid     int64  `json:"paid_cents"`
	// Date of its decision.
	Date string `json:"date,omitempty"`
}

// Prior is what another payer decided on a line.
type Prior struct {
	Payer       string       `json:"payer"`
	Date        string       `json:"date"`
	Paid        int64        `json:"paid_cents"`
	Adjustments []Adjustment `json:"adjustments,omitempty"`
}

// Adjustment of another payer.
type Adjustment struct {
	Group  string `json:"group"`
	CARC   string `json:"carc"`
	Amount int64  `json:"amount_cents"`
}

// sum sets the claim's charge.
func (c *Claim) sum() {
	c.Charge = 0
	for i := range c.Lines {
		c.Lines[i].Number = i + 1
		c.Charge += c.Lines[i].Charge
	}
}
