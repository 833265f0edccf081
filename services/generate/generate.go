// Package generate makes an invented payer, its members and as many claims as
// wanted: for load, for demonstrations, and for holding the engine against a
// second, independent model. The same options give the same bytes.
//
// What it makes is realistic where money depends on it: specialties with
// their usual services, families that share deductibles, referrals and prior
// authorisations, one or two other payers, accidents, hospital claims and
// stays, claim edits, corrections, and in small shares everything that goes wrong. Everybody in it is invented.
//
// Memory doesn't grow with the number of claims: each family is made from the
// seed and its own number, used, and forgotten. A family's claims stand
// together in a file, within one run of 250, so that a receiver that decides
// runs of a file beside each other still decides each family in order.
package generate

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

// Options of a world. Only Claims and AsOf must be given.
type Options struct {
	Seed   uint64
	Claims int
	// AsOf is the day on which the files will be received. Outcomes hold for
	// receipt from then to Slack days later.
	AsOf time.Time
	// Mix says how often what happens; nil is DefaultMix.
	Mix *Mix
	// Control numbers the interchange; several files of one world need several.
	Control int
}

// Slack is how many days after AsOf the files may be received without any
// outcome changing: timely claims stay timely that long.
const Slack = 30

// Mix is how often a claim has a peculiarity, in thousandths of the claims.
type Mix struct {
	Institutional   int // hospital claims, 837I
	Stays           int // of them inpatient
	OutOfNetwork    int
	Emergency       int // of them out of network: an emergency
	OtherPayer      int // this payer is secondary, with the primary's decision
	NoPrimaryAnswer int // this payer is secondary, without it
	Accident        int
	Late            int
	Duplicate       int // an earlier claim once more
	Suspected       int // an earlier claim once more with one field changed: pends
	SameDay         int // more of an earlier claim's day, on a claim of its own; the whole after its part pends
	UnknownMember   int
	NotCovered      int // outside the person's coverage
	NoReferral      int
	NoAuthorization int
	BadNPI          int // rejected before adjudication
	OutOfBalance    int // rejected before adjudication
	Modifiers       int // modifiers that contradict the procedure
	Review          int // a charge above the plan's review threshold: pends
	Replaced        int // replaced by another claim later; see Family.Corrections
	Voided          int // voided later
	LateReplaced    int // replaced by a claim that comes after the filing limit
	Terminated      int // of the families: a coverage is ended back later; see Family.Terminations
}

// DefaultMix has about 97 % of the claims decided without a person.
func DefaultMix() *Mix {
	return &Mix{
		Institutional: 90, Stays: 200, OutOfNetwork: 50, Emergency: 10, OtherPayer: 35, NoPrimaryAnswer: 8, Accident: 15, Late: 12,
		Duplicate: 25, Suspected: 8, SameDay: 15, UnknownMember: 12, NotCovered: 12, NoReferral: 10, NoAuthorization: 12,
		BadNPI: 4, OutOfBalance: 3, Modifiers: 8, Review: 4,
		Replaced: 15, Voided: 8, LateReplaced: 4, Terminated: 25,
	}
}

// run is how many claims of a file stand between two places where families
// begin anew.
const run = 250

// World is what Options describe.
type World struct {
	o         Options
	mix       Mix
	providers []provider
	year      int // of AsOf
}

// New checks options.
func New(o Options) (*World, error) {
	if o.Claims < 1 || o.Claims > 100_000_000 {
		return nil, errors.New("generate: claims must be 1 to 100,000,000")
	}
	if o.AsOf.IsZero() {
		return nil, errors.New("generate: the day of receipt is missing")
	}
	if o.Control < 0 || o.Control > 99_999_999 {
		return nil, errors.New("generate: the control number must be 0 to 99,999,999")
	}
	if o.Control == 0 {
		o.Control = 1
	}
	if o.Mix == nil {
		o.Mix = DefaultMix()
	}
	y, m, d := o.AsOf.Date()
	o.AsOf = time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	return &World{o: o, mix: *o.Mix, providers: makeProviders(o.Claims), year: y}, nil
}

// Numbered is the same world under another control number, for a further file
// of the same sender.
func (w *World) Numbered(control int) (*World, error) {
	o := w.o
	o.Control = control
	return New(o)
}

// Claims is how many claims Families yields.
func (w *World) Claims() int { return w.o.Claims }

// AsOf is the day of receipt.
func (w *World) AsOf() time.Time { return w.o.AsOf }

// Families yields the families in order with their claims.
func (w *World) Families() iter.Seq[*Family] {
	return func(yield func(*Family) bool) {
		left := w.o.Claims
		room := [2]int{run, run} // of the current runs of the professional and the institutional file
		made := 0
		for i := 0; left > 0; i++ {
			f := w.family(i, min(left, 24))
			f.trim(room, left)
			for j := range f.Professional {
				w.number(&f.Professional[j], &made)
			}
			for j := range f.Institutional {
				w.number(&f.Institutional[j], &made)
			}
			w.correct(w.rng(-2-i), f)
			left -= len(f.Professional) + len(f.Institutional)
			for k, n := range []int{len(f.Professional), len(f.Institutional)} {
				if room[k] -= n; room[k] == 0 {
					room[k] = run
				}
			}
			if !yield(f) {
				return
			}
		}
	}
}

// number gives a claim its control numbers.
func (w *World) number(c *Claim, made *int) {
	*made++
	c.ID = fmt.Sprintf("G%d-%d", w.o.Control, *made)
}

// rng is the source of one family's chances.
func (w *World) rng(family int) *rand.Rand {
	return rand.New(rand.NewPCG(w.o.Seed, uint64(int64(family)+1))) //nolint:gosec // invented people need no secrets
}

// day is the date so many days before the day of receipt, ISO 8601.
func (w *World) day(before int) string { return w.o.AsOf.AddDate(0, 0, -before).Format(time.DateOnly) }

// sometimes is true in perMille of a thousand cases.
func sometimes(rng *rand.Rand, perMille int) bool { return rng.IntN(1000) < perMille }

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }
