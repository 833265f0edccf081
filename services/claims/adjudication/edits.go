package adjudication

import (
	"errors"
	"fmt"
	"slices"
)

// Setting says whose claims a reference edit is for: CMS publishes its tables
// apart for practitioners, for outpatient hospitals and for suppliers of
// durable medical equipment. An inpatient claim meets none of them.
type Setting uint8

// The settings.
const (
	Practitioner       Setting = iota + 1 // practitioners and ambulatory surgery centres: 837P
	OutpatientHospital                    // 837I with an outpatient type of bill
	Supplier                              // 837P of a durable medical equipment supplier: unit limits only
	settings
)

// PairIndicator is the modifier indicator of a procedure-to-procedure edit.
type PairIndicator uint8

// The indicators, by the figure CMS writes.
const (
	PairNever    PairIndicator = 0 // the two are never paid together
	PairModifier PairIndicator = 1 // paid together where a modifier says they were apart
	PairDeleted  PairIndicator = 9 // the edit was withdrawn to its first day
)

// PairReason is what a pair's rationale says; it chooses the code on the
// remittance.
type PairReason uint8

// The reasons.
const (
	PairIncompatible PairReason = iota // CO-236: not payable with the other by coding rule
	PairComponent                      // CO-97 M15: part of the other procedure
	PairExclusive                      // CO-231: the two can't both have been done
)

// Pair is one row of a National Correct Coding Initiative table: where both
// procedures are given by one provider to one person on one day, Column2 isn't
// paid.
type Pair struct {
	Setting          Setting
	Column1, Column2 string
	// Period runs from the effective to the deletion date, both in force; a
	// zero End is not deleted.
	Period    Period
	Indicator PairIndicator
	Reason    PairReason
}

// LimitIndicator is the adjudication indicator of a medically unlikely edit.
type LimitIndicator uint8

// The indicators, by the figure CMS writes.
const (
	LimitLine          LimitIndicator = 1 // units of one line
	LimitDayAbsolute   LimitIndicator = 2 // units of a day, by statute or nature never more
	LimitDayAppealable LimitIndicator = 3 // units of a day, more on appeal with records
)

// UnitLimit is one row of a table of medically unlikely edits: the most units
// of a procedure that one provider may give one person.
type UnitLimit struct {
	Setting   Setting
	Procedure string
	Units     int64 // whole billed units
	Indicator LimitIndicator
	// Period is when the row governs; a table without dates governs its quarter.
	Period Period
}

// Edits is one version of the reference edits in the form the engine reads:
// immutable, sorted, safe to share. Three million pairs take about 50 MB.
type Edits struct {
	version string
	period  Period
	// pairs of each setting, by column 1, then column 2, then first day; a
	// pair that was deleted and came back stands twice.
	pairs  [settings][]pairRow
	firsts [settings]map[codeKey]span // a column 1's rows
	limits [settings]map[codeKey][]limitRow
}

type pairRow struct {
	column2   codeKey
	from, to  Date // to 0: open
	indicator PairIndicator
	reason    PairReason
}

type span struct{ from, to int32 }

type limitRow struct {
	units     int64
	period    Period
	indicator LimitIndicator
}

// EditsBuilder collects rows in any order; Compile turns them into Edits. The
// zero value is not usable, see NewEdits. A row that is refused leaves the
// builder as it was.
type EditsBuilder struct {
	version string
	period  Period
	pairs   [settings][]builtPair
	limits  [settings]map[codeKey][]limitRow
}

type builtPair struct {
	column1 codeKey
	pairRow
}

// NewEdits starts a version, "edits_2026q1@1" as decisions record it, that
// governs the dates of service in period.
func NewEdits(version string, period Period) *EditsBuilder {
	return &EditsBuilder{version: version, period: period}
}

// MaxEditUnits is more than any published limit; a row above it is refused.
const MaxEditUnits = 100_000

// Pair adds a row. The error says which field is unsound and holds only what
// the table holds, which is public.
func (b *EditsBuilder) Pair(p Pair) error {
	first, ok1 := keyOf(p.Column1)
	second, ok2 := keyOf(p.Column2)
	switch {
	case p.Setting != Practitioner && p.Setting != OutpatientHospital:
		return errors.New("adjudication: pair: no such setting")
	case !ok1 || len(p.Column1) != 5:
		return fmt.Errorf("adjudication: pair: column 1 %q is not a procedure code", p.Column1)
	case !ok2 || len(p.Column2) != 5:
		return fmt.Errorf("adjudication: pair: column 2 %q is not a procedure code", p.Column2)
	case first == second:
		return fmt.Errorf("adjudication: pair: %s is paired with itself", p.Column1)
	case p.Period.Start == 0:
		return errors.New("adjudication: pair: no effective date")
	case p.Period.End != 0 && p.Period.End < p.Period.Start:
		return errors.New("adjudication: pair: deleted before it was effective")
	case p.Indicator != PairNever && p.Indicator != PairModifier && p.Indicator != PairDeleted:
		return fmt.Errorf("adjudication: pair: modifier indicator %d is none of 0, 1, 9", p.Indicator)
	case p.Reason > PairExclusive:
		return errors.New("adjudication: pair: no such reason")
	}
	b.pairs[p.Setting] = append(b.pairs[p.Setting], builtPair{first, pairRow{second, p.Period.Start, p.Period.End, p.Indicator, p.Reason}})
	return nil
}

// Limit adds a row; see Pair.
func (b *EditsBuilder) Limit(u UnitLimit) error {
	key, ok := keyOf(u.Procedure)
	switch {
	case u.Setting == 0 || u.Setting >= settings:
		return errors.New("adjudication: unit limit: no such setting")
	case !ok || len(u.Procedure) != 5:
		return fmt.Errorf("adjudication: unit limit: %q is not a procedure code", u.Procedure)
	case u.Units < 0 || u.Units > MaxEditUnits:
		return fmt.Errorf("adjudication: unit limit: %d units is outside 0 to %d", u.Units, MaxEditUnits)
	case u.Indicator < LimitLine || u.Indicator > LimitDayAppealable:
		return fmt.Errorf("adjudication: unit limit: adjudication indicator %d is none of 1, 2, 3", u.Indicator)
	case u.Period.End != 0 && u.Period.End < u.Period.Start:
		return errors.New("adjudication: unit limit: ends before it begins")
	}
	if b.limits[u.Setting] == nil {
		b.limits[u.Setting] = map[codeKey][]limitRow{}
	}
	for _, was := range b.limits[u.Setting][key] {
		if overlap(was.period, u.Period) {
			return fmt.Errorf("adjudication: unit limit: %s is limited twice on the same days", u.Procedure)
		}
	}
	b.limits[u.Setting][key] = append(b.limits[u.Setting][key], limitRow{u.Units, u.Period, u.Indicator})
	return nil
}

func overlap(a, b Period) bool {
	return (a.End == 0 || b.Start <= a.End) && (b.End == 0 || a.Start <= b.End)
}

// Compile sorts and indexes the rows and empties the builder. A pair twice on
// the same days is refused: which of the two holds would be chance.
func (b *EditsBuilder) Compile() (*Edits, error) {
	switch {
	case b.version == "":
		return nil, errors.New("adjudication: edits without a version")
	case b.period.Start == 0:
		return nil, fmt.Errorf("adjudication: edits %s: no first day", b.version)
	case b.period.End != 0 && b.period.End < b.period.Start:
		return nil, fmt.Errorf("adjudication: edits %s: end before they begin", b.version)
	}
	e := &Edits{version: b.version, period: b.period, limits: b.limits}
	for s := range b.pairs {
		built := b.pairs[s]
		slices.SortFunc(built, func(x, y builtPair) int {
			switch {
			case x.column1 != y.column1:
				return order(x.column1, y.column1)
			case x.column2 != y.column2:
				return order(x.column2, y.column2)
			}
			return order(x.from, y.from)
		})
		rows := make([]pairRow, len(built))
		e.firsts[s] = map[codeKey]span{}
		for i, p := range built {
			rows[i] = p.pairRow
			at, known := e.firsts[s][p.column1]
			if !known {
				at.from = int32(i)
			}
			at.to = int32(i + 1)
			e.firsts[s][p.column1] = at
			if i > 0 && built[i-1].column1 == p.column1 && built[i-1].column2 == p.column2 &&
				p.indicator != PairDeleted && built[i-1].indicator != PairDeleted &&
				overlap(Period{built[i-1].from, built[i-1].to}, Period{p.from, p.to}) {
				return nil, fmt.Errorf("adjudication: edits %s: %s and %s are paired twice on the same days", b.version, p.column1.code(), p.column2.code())
			}
		}
		e.pairs[s], b.pairs[s] = rows, nil
	}
	b.limits = [settings]map[codeKey][]limitRow{}
	return e, nil
}

func order[N ~int32 | ~uint64](x, y N) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// Version returns the version as decisions record it.
func (e *Edits) Version() string { return e.version }

// Period returns the dates of service that this version governs.
func (e *Edits) Period() Period { return e.period }

// Size returns how many pairs and unit limits there are.
func (e *Edits) Size() (pairs, limits int) {
	for s := range e.pairs {
		pairs += len(e.pairs[s])
		for _, rows := range e.limits[s] {
			limits += len(rows)
		}
	}
	return pairs, limits
}

// column2 returns the rows that name the procedure in column 1.
func (e *Edits) column2(s Setting, column1 codeKey) []pairRow {
	at, ok := e.firsts[s][column1]
	if !ok {
		return nil
	}
	return e.pairs[s][at.from:at.to]
}

// pairOn finds the row for a procedure in column 2 that is in force on the day.
func pairOn(rows []pairRow, column2 codeKey, on Date) (pairRow, bool) {
	i, _ := slices.BinarySearchFunc(rows, column2, func(r pairRow, k codeKey) int { return order(r.column2, k) })
	for ; i < len(rows) && rows[i].column2 == column2; i++ {
		if r := rows[i]; r.indicator != PairDeleted && (Period{r.from, r.to}).Contains(on) {
			return r, true
		}
	}
	return pairRow{}, false
}

// limitOn returns the procedure's unit limit on the day.
func (e *Edits) limitOn(s Setting, procedure codeKey, on Date) (limitRow, bool) {
	for _, l := range e.limits[s][procedure] {
		if l.period.Contains(on) {
			return l, true
		}
	}
	return limitRow{}, false
}
