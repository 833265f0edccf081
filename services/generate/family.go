package generate

import (
	"fmt"
	"math/rand/v2"
	"time"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

// Family is one card with its persons, what the payer knows of them, and
// their claims in the order in which they are filed.
type Family struct {
	Enrollments    []*policiesv1.Enrollment
	Authorizations []*policiesv1.PriorAuthorization
	Professional   []Claim
	Institutional  []Claim
	// Corrections replace or void claims above, each at most one. They are
	// filed once those are decided: Original is then the original's ID, for
	// which the sender puts the payer's claim number.
	Corrections []Claim
	// Terminations are what the sponsor says when all that is decided. A
	// family has one or the other.
	Terminations []Termination

	memberID string
	plan     string
	persons  []member
	nextDay  int // days before AsOf of the next claim's service
}

// Termination ends a person's coverage late: services after its last day were
// decided as covered.
type Termination struct {
	MemberID string
	Person   Person
	End      string // last covered day
}

type member struct {
	Person
	relationship string
	from, to     string // coverage; an empty end is open
	secondary    bool   // another payer is primary
}

var (
	firstNames = []string{"Ada", "Bela", "Cleo", "Dara", "Edda", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kaia", "Lars", "Mina", "Nils", "Odile", "Pia"}
	lastNames  = []string{"Alderson", "Bergstrom", "Castellan", "Dunmore", "Eastwick", "Farrow", "Grayling", "Hollis", "Imber", "Jessop", "Kestrel", "Lorimer"}
)

// family makes family i with at most limit claims.
func (w *World) family(i, limit int) *Family {
	rng := w.rng(i)
	f := &Family{memberID: fmt.Sprintf("HB%02d%08d", w.o.Seed%100, i)}
	switch n := rng.IntN(100); {
	case n < 45:
		f.plan = planPPO
	case n < 65:
		f.plan = planHDHP
	case n < 85:
		f.plan = planHMO
	default:
		f.plan = planSenior
	}
	w.persons(rng, f)
	claims := 1 + rng.IntN(4) + rng.IntN(4)
	course := sometimes(rng, 15) // a course of treatment runs into its limits
	if course {
		claims = 14 + rng.IntN(6)
	}
	w.stories(rng, f, min(claims, limit), course)
	w.enrol(f)
	return f
}

func (w *World) persons(rng *rand.Rand, f *Family) {
	last := pick(rng, lastNames)
	size := 1 + rng.IntN(4)
	if f.plan == planSenior {
		size = 1
	}
	// Coverage began on a first of the month of the last year, so that a
	// "coverage" plan year restarts at any season.
	start := fmt.Sprintf("%d-%02d-01", w.year-1, 1)
	if f.plan == planHMO {
		start = fmt.Sprintf("%d-%02d-01", w.year-2, 1+rng.IntN(12))
	}
	for j := range size {
		p := member{relationship: [...]string{"18", "01", "19", "19"}[j], from: start}
		year := w.year - 25 - rng.IntN(35)
		switch {
		case f.plan == planSenior:
			year = w.year - 66 - rng.IntN(20)
		case j > 1:
			year = w.year - 3 - rng.IntN(14)
		}
		p.Person = Person{First: firstNames[(rng.IntN(4)+j*4)%len(firstNames)], Last: last, Sex: pick(rng, []string{"F", "M"}),
			// Grown-ups and children differ by year, two of a kind by half of it.
			Birth: fmt.Sprintf("%04d-%02d-%02d", year, 1+rng.IntN(6)+6*(j%2), 1+rng.IntN(28))}
		p.secondary = sometimes(rng, w.mix.OtherPayer+w.mix.NoPrimaryAnswer)
		f.persons = append(f.persons, p)
	}
}

// enrol writes the persons down as the payer knows them.
func (w *World) enrol(f *Family) {
	for _, p := range f.persons {
		f.Enrollments = append(f.Enrollments, &policiesv1.Enrollment{
			PolicyId: policyOf(f.plan), MemberId: f.memberID, RelationshipCode: p.relationship, LastName: p.Last, FirstName: p.First,
			BirthDate: p.Birth, Sex: p.Sex, Coverage: &typev1.Period{StartDate: p.from, EndDate: p.to}, OtherPayerPrimary: p.secondary,
		})
	}
}

// trim cuts the claims to the room that the files' current runs have left.
func (f *Family) trim(room [2]int, left int) {
	f.Professional = f.Professional[:min(len(f.Professional), room[0], left)]
	f.Institutional = f.Institutional[:min(len(f.Institutional), room[1], left-len(f.Professional))]
}

// before is a date n days before another.
func before(date string, n int) string {
	t, err := time.Parse(time.DateOnly, date)
	if err != nil {
		panic(err) // dates here are our own
	}
	return t.AddDate(0, 0, -n).Format(time.DateOnly)
}
