package generate

import "fmt"

// specialty is what a kind of provider usually does. Codes are the field's;
// charges are invented.
type specialty struct {
	name      string
	taxonomy  string
	visits    []service // one of them heads most claims
	extras    []service // none to three of them follow
	diagnoses []string
	place     string
	// share of the claims, thousandths.
	share    int
	referral bool // a specialist's services: an HMO wants a referral
	hospital bool // bills 837I
}

type service struct {
	code     string
	charge   int64 // cents a unit
	revenue  string
	maxUnits int // usual most; 0 is one
	surgical bool
	auth     bool
	listed   bool // needs an authorisation by the saver plan's list, not by its benefit
	base     int  // base units of an anaesthesia procedure, billed in minutes; 0 is none
}

var specialties = []specialty{
	{name: "FAMILY MEDICINE", taxonomy: "207Q00000X", share: 230, place: "11",
		visits:    []service{{code: "99213", charge: 145_00}, {code: "99214", charge: 210_00}, {code: "99203", charge: 225_00}, {code: "99396", charge: 240_00}},
		extras:    []service{{code: "36415", charge: 18_00}, {code: "85025", charge: 32_00}, {code: "80053", charge: 41_00}, {code: "83036", charge: 38_00}, {code: "90471", charge: 35_00}, {code: "93000", charge: 76_00}},
		diagnoses: []string{"I10", "E119", "J069", "Z0000", "R05", "K219"}},
	{name: "PEDIATRICS", taxonomy: "208000000X", share: 90, place: "11",
		visits:    []service{{code: "99213", charge: 139_00}, {code: "99392", charge: 195_00}, {code: "99393", charge: 199_00}},
		extras:    []service{{code: "90460", charge: 40_00}, {code: "87880", charge: 33_00}, {code: "92551", charge: 28_00}},
		diagnoses: []string{"J029", "H6690", "Z00129", "B349"}},
	{name: "CARDIOLOGY", taxonomy: "207RC0000X", share: 80, place: "11", referral: true,
		visits:    []service{{code: "99243", charge: 290_00}, {code: "99214", charge: 235_00}},
		extras:    []service{{code: "93000", charge: 88_00}, {code: "93306", charge: 910_00}, {code: "93015", charge: 430_00}},
		diagnoses: []string{"I2510", "I4891", "I10", "R079"}},
	{name: "DERMATOLOGY", taxonomy: "207N00000X", share: 70, place: "11", referral: true,
		visits: []service{{code: "99213", charge: 155_00}, {code: "99243", charge: 260_00}},
		extras: []service{{code: "11102", charge: 190_00, surgical: true}, {code: "17000", charge: 145_00, surgical: true}, {code: "88305", charge: 160_00},
			{code: "17380", charge: 210_00}},
		diagnoses: []string{"L570", "D225", "L821", "C44319"}},
	{name: "ORTHOPAEDICS", taxonomy: "207X00000X", share: 60, place: "11", referral: true,
		visits:    []service{{code: "99203", charge: 255_00}, {code: "29881", charge: 2450_00, surgical: true}, {code: "20610", charge: 265_00, surgical: true}},
		extras:    []service{{code: "73562", charge: 110_00}, {code: "20610", charge: 265_00, surgical: true}, {code: "29876", charge: 1900_00, surgical: true}},
		diagnoses: []string{"M1711", "S83206A", "M25561", "M545"}},
	{name: "IMAGING", taxonomy: "2085R0202X", share: 80, place: "11",
		visits:    []service{{code: "71046", charge: 98_00}, {code: "73721", charge: 1150_00, auth: true}, {code: "70553", charge: 1620_00, auth: true}, {code: "76700", charge: 340_00}, {code: "77067", charge: 310_00}},
		diagnoses: []string{"R0602", "M25561", "R51", "R1011", "Z1231"}},
	{name: "LABORATORY", taxonomy: "291U00000X", share: 110, place: "81",
		visits:    []service{{code: "80053", charge: 52_00}, {code: "85025", charge: 37_00}, {code: "80061", charge: 61_00}},
		extras:    []service{{code: "84443", charge: 74_00}, {code: "83036", charge: 44_00}, {code: "82306", charge: 120_00}, {code: "81001", charge: 19_00}},
		diagnoses: []string{"E785", "E119", "E039", "Z0000"}},
	{name: "PHYSICAL THERAPY", taxonomy: "225100000X", share: 80, place: "11",
		visits:    []service{{code: "97110", charge: 62_00, maxUnits: 4}, {code: "97140", charge: 58_00, maxUnits: 3}},
		extras:    []service{{code: "97530", charge: 64_00, maxUnits: 2}, {code: "97112", charge: 63_00, maxUnits: 2}},
		diagnoses: []string{"M545", "M25511", "S335XXA"}},
	{name: "CHIROPRACTIC", taxonomy: "111N00000X", share: 40, place: "11",
		visits:    []service{{code: "98940", charge: 55_00}, {code: "98941", charge: 70_00}},
		diagnoses: []string{"M9903", "M545"}},
	{name: "BEHAVIORAL HEALTH", taxonomy: "103T00000X", share: 60, place: "10",
		visits:    []service{{code: "90834", charge: 165_00}, {code: "90837", charge: 210_00}, {code: "90791", charge: 285_00}},
		diagnoses: []string{"F411", "F329", "F4310"}},
	{name: "MEDICAL SUPPLY", taxonomy: "332B00000X", share: 20, place: "12",
		visits:    []service{{code: "E0601", charge: 980_00, listed: true}, {code: "A7030", charge: 240_00}, {code: "L1833", charge: 890_00}},
		diagnoses: []string{"G4733", "M1711"}},
	{name: "EMERGENCY PHYSICIANS", taxonomy: "207P00000X", share: 50, place: "23",
		visits:    []service{{code: "99283", charge: 480_00}, {code: "99284", charge: 790_00}, {code: "99285", charge: 1210_00}},
		extras:    []service{{code: "12001", charge: 390_00, surgical: true}, {code: "71046", charge: 105_00}},
		diagnoses: []string{"S0181XA", "R079", "R1030", "J189"}},
	{name: "ANESTHESIA", taxonomy: "207L00000X", share: 30, place: "22",
		visits:    []service{{code: "00840", charge: 420_00, base: 6}, {code: "01400", charge: 310_00, base: 4}, {code: "00520", charge: 390_00, base: 6}},
		diagnoses: []string{"K8020", "M1711", "S83206A"}},
	{name: "GENERAL HOSPITAL", taxonomy: "282N00000X", hospital: true,
		visits: []service{{code: "99284", charge: 2150_00, revenue: "0450"}, {code: "47562", charge: 9800_00, revenue: "0360", surgical: true},
			{code: "45378", charge: 3100_00, revenue: "0750", surgical: true}},
		extras: []service{{code: "80053", charge: 240_00, revenue: "0301"}, {code: "85025", charge: 130_00, revenue: "0305"}, {code: "71046", charge: 520_00, revenue: "0324"},
			{charge: 310_00, revenue: "0250"}, {charge: 185_00, revenue: "0270"}, {code: "96374", charge: 420_00, revenue: "0260"}},
		diagnoses: []string{"K8020", "R1011", "K573", "S0181XA"}},
}

// provider bills.
type provider struct {
	npi       string
	rendering string // empty: bills for itself
	name      string
	taxID     string
	specialty int
	contract  string // standing: "in", "capitated", "" for none
}

// providersEach is how many of a specialty are in network; one more is not.
const providersEach = 3

// anesthesia is the place of ANESTHESIA among the specialties.
const anesthesia = 12

// claimsAnAnesthetist is how many claims of all kinds another anaesthetist
// comes with. Their work is billed by the minute: three of them would have
// worked more than the hours a day has, which the payer rightly doubts.
const claimsAnAnesthetist = 8_000

// capitated is the place of the primary care group that an HMO pays by the
// head; the anaesthetists of a large world follow it.
var capitated = len(specialties) * (providersEach + 1)

func makeProviders(claims int) []provider {
	var out []provider
	n := 0
	number := func() string {
		n++
		return npi(20_000_000 + n*137)
	}
	for s, kind := range specialties {
		for i := range providersEach + 1 {
			p := provider{npi: number(), name: fmt.Sprintf("%s %s", towns[i], kind.name), taxID: fmt.Sprintf("34%07d", 1000+n), specialty: s, contract: "in"}
			if i == providersEach {
				p.contract = ""
			}
			if !kind.hospital && i%2 == 1 {
				p.rendering = number()
			}
			out = append(out, p)
		}
	}
	out = append(out, provider{npi: number(), name: "HEADLAND PRIMARY CARE", taxID: "349999001", specialty: 0, contract: "capitated"})
	for i := range claims / claimsAnAnesthetist {
		out = append(out, provider{
			npi: number(), name: fmt.Sprintf("ANESTHESIA GROUP %d", i+1), taxID: fmt.Sprintf("34%07d", 1000+n),
			specialty: anesthesia, contract: "in", rendering: number(),
		})
	}
	return out
}

var towns = []string{"EASTPORT", "MILLBROOK", "GRANTHAM", "FARAWAY"}

// npi makes a National Provider Identifier of eight digits: 1, the digits and
// the Luhn digit over 80840 and the nine.
func npi(eight int) string {
	nine := fmt.Sprintf("1%08d", eight)
	sum := 24 // of the prefix 80840
	for i := range nine {
		d := int(nine[i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return fmt.Sprintf("%s%d", nine, (10-sum%10)%10)
}

// broken is an NPI with a wrong check digit.
func broken(npi string) string {
	return npi[:9] + string('0'+(npi[9]-'0'+1)%10)
}
