// Package claimgen makes synthetic families and 837P files for tests and
// benchmarks. The same seed gives the same bytes.
//
// It covers what load and crash tests need: many families, several claims a
// family, lines with prices and without. It doesn't try to be realistic.
package claimgen

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

// Payer is whom the claims are sent to.
type Payer struct {
	ID       string // NM109 of 2010BB
	Name     string
	PolicyID string // the policy members are enrolled under
}

// Provider bills.
type Provider struct {
	NPI, Name, TaxID string
}

// World is a payer, its providers and its families.
type World struct {
	payer     Payer
	providers []Provider
	families  []family
}

type family struct {
	memberID string
	last     string
	persons  []person
}

type person struct {
	first, birth, sex, relationship string
}

var (
	firstNames = []string{"Ada", "Bela", "Cleo", "Dara", "Edda", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kaia", "Lars"}
	lastNames  = []string{"Alderson", "Bergström", "Castellan", "Dunmore", "Eastwick", "Farrow", "Grayling", "Hollis"}
	procedures = []struct {
		code  string
		cents int64
	}{{"99213", 14500}, {"99214", 21000}, {"85025", 3200}, {"80053", 4100}, {"71046", 9800}, {"93000", 7600}}
	diagnoses = []string{"I10", "E119", "J069", "M545", "Z0000"}
)

// New makes families of one to four persons.
func New(seed uint64, families int, payer Payer, providers []Provider) *World {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &World{payer: payer, providers: providers}
	for i := range families {
		f := family{memberID: fmt.Sprintf("GEN%d%07d", seed%10, i), last: asciiOnly(lastNames[rng.IntN(len(lastNames))])}
		size := 1 + rng.IntN(4)
		for j := range size {
			relationship := [...]string{"18", "01", "19", "19"}[j]
			year := 1960 + rng.IntN(35)
			if j > 1 {
				year = 2008 + rng.IntN(15)
			}
			f.persons = append(f.persons, person{
				first:        firstNames[(i+j*5)%len(firstNames)],
				birth:        fmt.Sprintf("%04d-%02d-%02d", year, 1+rng.IntN(12), 1+rng.IntN(28)),
				sex:          [...]string{"F", "M"}[rng.IntN(2)],
				relationship: relationship,
			})
		}
		w.families = append(w.families, f)
	}
	return w
}

// Enrollments returns every person, covered for all of 2026.
func (w *World) Enrollments() []*policiesv1.Enrollment {
	var all []*policiesv1.Enrollment
	for _, f := range w.families {
		for _, p := range f.persons {
			all = append(all, &policiesv1.Enrollment{
				PolicyId: w.payer.PolicyID, MemberId: f.memberID, RelationshipCode: p.relationship,
				LastName: f.last, FirstName: p.first, BirthDate: p.birth, Sex: p.sex,
				Coverage: &typev1.Period{StartDate: "2026-01-01"},
			})
		}
	}
	return all
}

// File writes an 837P interchange of n distinct claims with dates of service
// in the 60 days up to asOf. The control number tells files apart.
func (w *World) File(seed uint64, n int, control int, asOf time.Time) []byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	var b strings.Builder
	segments := 0
	seg := func(format string, args ...any) {
		fmt.Fprintf(&b, format+"~\n", args...)
		segments++
	}
	date, clock := asOf.Format("20060102"), asOf.Format("1504")
	seg("ISA*00*          *00*          *ZZ*GENERATOR      *ZZ*PROBITY        *%s*%s*^*00501*%09d*0*T*:", date[2:], clock, control)
	seg("GS*HC*GENERATOR*PROBITY*%s*%s*%d*X*005010X222A1", date, clock, control)
	segments = 0
	seg("ST*837*0001*005010X222A1")
	seg("BHT*0019*00*%d*%s*%s*CH", control, date, clock)
	seg("NM1*41*2*GENERATED CLAIMS*****46*GENERATOR")
	seg("PER*IC*SUPPORT*TE*5550100000")
	seg("NM1*40*2*%s*****46*PROBITY", w.payer.Name)
	hl := 0
	perProvider := (n + len(w.providers) - 1) / len(w.providers)
	made := 0
	for _, provider := range w.providers {
		hl++
		billing := hl
		seg("HL*%d**20*1", hl)
		seg("NM1*85*2*%s*****XX*%s", provider.Name, provider.NPI)
		seg("N3*1 GENERATED WAY")
		seg("N4*COLUMBUS*OH*432150001")
		seg("REF*EI*%s", provider.TaxID)
		for range perProvider {
			if made == n {
				break
			}
			f := w.families[made%len(w.families)]
			p := f.persons[rng.IntN(len(f.persons))]
			w.claim(seg, rng, &hl, billing, f, p, made, control, asOf)
			made++
		}
	}
	seg("SE*%d*0001", segments+1)
	seg("GE*1*%d", control)
	seg("IEA*1*%09d", control)
	return []byte(b.String())
}

func (w *World) claim(seg func(string, ...any), rng *rand.Rand, hl *int, billing int, f family, p person, ordinal, control int, asOf time.Time) {
	*hl++
	subscriber := *hl
	self := p.relationship == "18"
	child := 1
	if self {
		child = 0
	}
	seg("HL*%d*%d*22*%d", subscriber, billing, child)
	if self {
		seg("SBR*P*18*******CI")
	} else {
		seg("SBR*P********CI")
	}
	head := f.persons[0]
	seg("NM1*IL*1*%s*%s****MI*%s", strings.ToUpper(f.last), strings.ToUpper(head.first), f.memberID)
	if self {
		seg("N3*2 GENERATED WAY")
		seg("N4*COLUMBUS*OH*432150001")
	}
	seg("DMG*D8*%s*%s", strings.ReplaceAll(head.birth, "-", ""), head.sex)
	seg("NM1*PR*2*%s*****PI*%s", w.payer.Name, w.payer.ID)
	if !self {
		*hl++
		seg("HL*%d*%d*23*0", *hl, subscriber)
		seg("PAT*%s", p.relationship)
		seg("NM1*QC*1*%s*%s", strings.ToUpper(f.last), strings.ToUpper(p.first))
		seg("N3*2 GENERATED WAY")
		seg("N4*COLUMBUS*OH*432150001")
		seg("DMG*D8*%s*%s", strings.ReplaceAll(p.birth, "-", ""), p.sex)
	}
	lines := 1 + rng.IntN(3)
	first := rng.IntN(len(procedures))
	var total int64
	for i := range lines {
		total += procedures[(first+i)%len(procedures)].cents + int64(ordinal%97)
	}
	seg("CLM*G%d-%d*%s***11:B:1*Y*A*Y*Y", control, ordinal, amount(total))
	seg("HI*ABK:%s", diagnoses[rng.IntN(len(diagnoses))])
	// Consecutive claims of a family fall on different days, so none looks like a duplicate.
	served := asOf.AddDate(0, 0, -1-(ordinal/len(w.families))%60).Format("20060102")
	for i := range lines {
		pr := procedures[(first+i)%len(procedures)]
		seg("LX*%d", i+1)
		seg("SV1*HC:%s*%s*UN*1***1", pr.code, amount(pr.cents+int64(ordinal%97)))
		seg("DTP*472*D8*%s", served)
		seg("REF*6R*%d-%d-%d", control, ordinal, i+1)
	}
}

func amount(cents int64) string {
	s := fmt.Sprintf("%d.%02d", cents/100, cents%100)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		if r > 127 {
			return 'o'
		}
		return r
	}, s)
}
