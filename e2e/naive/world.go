// Package naive decides generated claims a second time: slowly, in straight
// lines, with nothing shared with the engine. It exists to be compared with.
//
// It reads what `probity generate` writes: plan, fee schedule, contract and
// policy documents, enrolments and prior authorisations in their JSON form,
// and claims in plain terms. It imports the standard library and nothing
// else, so that no mistake can be shared by way of common code. Where it and
// the engine differ, the source of the rule says which is wrong.
//
// A model is one payer's claims in the order in which they are finalised.
package naive

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// number is a JSON integer that may be written in quotes, as protobuf writes
// 64-bit ones.
type number int64

// UnmarshalJSON reads 12 and "12".
func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	*n = number(v)
	return err
}

type period struct {
	Start string `json:"start_date"`
	End   string `json:"end_date"`
}

func (p period) has(day string) bool { return day >= p.Start && (p.End == "" || day <= p.End) }

type plan struct {
	ID            string    `json:"plan_id"`
	Payer         string    `json:"payer_id"`
	Effective     period    `json:"effective"`
	Year          string    `json:"plan_year"`
	Filing        int       `json:"timely_filing_days"`
	In            share     `json:"in_network"`
	Out           *share    `json:"out_of_network"`
	Benefits      []benefit `json:"benefits"`
	OutAllowedBps number    `json:"out_of_network_allowed_bps"`
	FeeSchedule   string    `json:"fee_schedule_id"`
	Referral      bool      `json:"referral_required"`
	MultipleBps   number    `json:"multiple_procedure_bps"`
	ReviewAbove   number    `json:"review_above_cents"`
	Sequestration number    `json:"sequestration_bps"`
	Coordination  struct {
		Method string `json:"method"`
	} `json:"coordination"`
	Authorize []string `json:"prior_authorization_procedures"`
	Rules     []rule   `json:"rules"`
	Networks  []struct {
		ID    string   `json:"network_id"`
		Tiers []string `json:"tiers"`
	} `json:"networks"`
	Tiers []struct {
		Name  string `json:"name"`
		Share share  `json:"cost_share"`
		Who   []struct {
			ID    string   `json:"network_id"`
			Tiers []string `json:"tiers"`
		} `json:"participants"`
	} `json:"tiers"`
}

// rule is a plan's own. The model doesn't read its condition: it knows what
// its clause says, by its id (rules.go).
type rule struct {
	ID       string   `json:"id"`
	Benefits []string `json:"benefits"`
	Group    string   `json:"group_code"`
	CARC     string   `json:"carc"`
}

type share struct {
	Deductible       number `json:"deductible_individual_cents"`
	FamilyDeductible number `json:"deductible_family_cents"`
	Kind             string `json:"deductible_kind"`
	Coinsurance      number `json:"coinsurance_bps"`
	Cap              number `json:"out_of_pocket_individual_cents"`
	FamilyCap        number `json:"out_of_pocket_family_cents"`
}

type benefit struct {
	Name  string `json:"name"`
	Match struct {
		Procedures []string `json:"procedures"`
		Places     []string `json:"places_of_service"`
		Revenues   []string `json:"revenue_codes"`
	} `json:"match"`
	Covered        bool     `json:"covered"`
	CopayIn        number   `json:"copay_in_cents"`
	CopayOut       number   `json:"copay_out_cents"`
	Waived         bool     `json:"deductible_waived"`
	CoinsuranceIn  number   `json:"coinsurance_in_bps"`
	CoinsuranceOut number   `json:"coinsurance_out_bps"`
	Own            bool     `json:"use_coinsurance"`
	Visits         number   `json:"visits_per_year"`
	Dollars        number   `json:"dollars_per_year_cents"`
	Lifetime       number   `json:"lifetime_cents"`
	Authorization  bool     `json:"prior_authorization"`
	Document       bool     `json:"document_required"`
	Diagnoses      []string `json:"diagnosis_prefixes"`
	Specialist     bool     `json:"specialist"`
	Review         bool     `json:"review"`
	Tiers          []struct {
		Tier        string `json:"tier"`
		Copay       number `json:"copay_cents"`
		Coinsurance number `json:"coinsurance_bps"`
	} `json:"tiers"`
}

type schedule struct {
	ID        string `json:"fee_schedule_id"`
	Effective period `json:"effective"`
	Default   number `json:"default_bps_of_charge"`
	Fees      []fee  `json:"fees"`
}

type fee struct {
	Procedure string `json:"procedure"`
	Modifier  string `json:"modifier"`
	Amount    number `json:"amount_cents"`
	Surgical  bool   `json:"surgical"`
	MaxUnits  number `json:"max_units"`
	Base      number `json:"base_units"`
}

type contract struct {
	ID        string   `json:"contract_id"`
	NPIs      []string `json:"npis"`
	Effective period   `json:"effective"`
	Schedule  string   `json:"fee_schedule_id"`
	Bps       number   `json:"fee_bps"`
	Plans     []string `json:"plan_ids"`
	Capitated bool     `json:"capitated"`
	Rates     []rate   `json:"facility_rates"`
}

// network says who takes part, and when: by NPI, or by the biller's tax id.
type network struct {
	ID           string `json:"network_id"`
	Effective    period `json:"effective"`
	Participants []struct {
		NPI  string `json:"npi"`
		TIN  string `json:"tin"`
		Tier string `json:"tier"`
		Days period `json:"participates"`
	} `json:"participants"`
}

type policy struct {
	ID        string `json:"policy_id"`
	Plan      string `json:"plan_id"`
	Effective period `json:"effective"`
}

type enrolment struct {
	Policy       string `json:"policy_id"`
	Member       string `json:"member_id"`
	First        string `json:"first_name"`
	Birth        string `json:"birth_date"`
	Relationship string `json:"relationship_code"`
	Coverage     period `json:"coverage"`
	OtherPrimary bool   `json:"other_payer_primary"`
}

type authorization struct {
	Number     string   `json:"number"`
	Member     string   `json:"member_id"`
	Birth      string   `json:"birth_date"`
	Procedures []string `json:"procedures"`
	Units      number   `json:"units"`
	Effective  period   `json:"effective"`
}

// Model is the naive payer. It is not safe for concurrent use.
type Model struct {
	received string // day of receipt

	plans     []plan
	schedules []schedule
	contracts []contract
	policies  []policy
	tables    []table
	networks  []network
	families  map[string]*family // by member id
}

// family is everything that is remembered of one card.
type family struct {
	persons        []enrolment
	authorizations []authorization
	used           map[string]int64 // accumulators by name
	past           []pastLine
	filed          []*claim // what stands, in order
}

type pastLine struct {
	person    string // birth date and first name
	billing   string
	rendering string
	date, end string
	code      string
	modifiers []string
	quantity  int64
	charge    int64
	allowed   bool
	payable   int64 // quantity that was priced
	surgical  bool
}

// New makes a payer that received every claim on one day, ISO 8601.
func New(received string) *Model { return &Model{received: received, families: map[string]*family{}} }

// Add takes one document in its JSON form: what kind it is, its fields tell.
func (m *Model) Add(document []byte) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(document, &keys); err != nil {
		return err
	}
	has := func(name string) bool { _, ok := keys[name]; return ok }
	switch {
	case has("benefits"):
		return read(document, &m.plans)
	case has("fees"):
		return read(document, &m.schedules)
	case has("participants"):
		return read(document, &m.networks)
	case has("contract_id"):
		return read(document, &m.contracts)
	case has("relationship_code"):
		var e enrolment
		if err := json.Unmarshal(document, &e); err != nil {
			return err
		}
		f := m.family(e.Member)
		f.persons = append(f.persons, e)
		return nil
	case has("number"):
		var a authorization
		if err := json.Unmarshal(document, &a); err != nil {
			return err
		}
		f := m.family(a.Member)
		f.authorizations = append(f.authorizations, a)
		return nil
	case has("policy_id"):
		return read(document, &m.policies)
	}
	return fmt.Errorf("naive: a document of no known kind")
}

func read[T any](document []byte, into *[]T) error {
	var one T
	if err := json.Unmarshal(document, &one); err != nil {
		return err
	}
	*into = append(*into, one)
	return nil
}

func (m *Model) family(member string) *family {
	f := m.families[member]
	if f == nil {
		f = &family{used: map[string]int64{}}
		m.families[member] = f
	}
	return f
}

// Forget drops a family whose claims are all decided.
func (m *Model) Forget(member string) { delete(m.families, member) }
