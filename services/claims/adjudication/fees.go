package adjudication

import (
	"fmt"

	"github.com/probity-health/probity/services/money"
)

// FeeScheduleSpec is one version of a fee schedule in the terms of
// probity.policies.v1.FeeSchedule.
type FeeScheduleSpec struct {
	ID                 string
	Version            string // "fs_standard@1"
	Period             Period
	Fees               []Fee
	DefaultBpsOfCharge int64 // for a procedure without a fee; 0: no rate, CO-147
}

// Fee is one price.
type Fee struct {
	Procedure string
	Modifier  string      // empty: any
	Amount    money.Cents // a unit
	Surgical  bool        // multiple-procedure reduction applies
	MaxUnits  int64       // payable a line; 0: no limit
	// BaseUnits of an anaesthesia procedure, to which the time's are added.
	BaseUnits int64
	// TypicalMinutes of the provider's own time a unit; 0 is not known. Read
	// for no price, only to tell an impossible day.
	TypicalMinutes int64
}

// FeeSchedule is a compiled fee schedule: immutable, safe to share.
type FeeSchedule struct {
	id, version string
	period      Period
	defaultBps  int64
	fees        map[feeKey]Fee
}

type feeKey struct {
	procedure codeKey
	modifier  codeKey
}

// CompileFeeSchedule checks a fee schedule and indexes its prices.
func CompileFeeSchedule(spec FeeScheduleSpec) (*FeeSchedule, error) {
	if spec.ID == "" || spec.Version == "" {
		return nil, fmt.Errorf("adjudication: fee schedule without id or version")
	}
	if spec.DefaultBpsOfCharge < 0 || spec.DefaultBpsOfCharge > whole {
		return nil, fmt.Errorf("adjudication: fee schedule %s: defaultBpsOfCharge outside 0 to 10000", spec.Version)
	}
	s := &FeeSchedule{
		id: spec.ID, version: spec.Version, period: spec.Period, defaultBps: spec.DefaultBpsOfCharge,
		fees: make(map[feeKey]Fee, len(spec.Fees)),
	}
	for i, f := range spec.Fees {
		key, ok := feeKeyOf(f.Procedure, f.Modifier)
		if !ok {
			return nil, fmt.Errorf("adjudication: fee schedule %s: fees[%d] has no usable procedure code", spec.Version, i)
		}
		if _, twice := s.fees[key]; twice {
			return nil, fmt.Errorf("adjudication: fee schedule %s: fees[%d] prices %s a second time", spec.Version, i, f.Procedure)
		}
		if f.Amount < 0 || f.Amount > maxAmount || f.MaxUnits < 0 ||
			f.BaseUnits < 0 || f.BaseUnits > 100 || f.TypicalMinutes < 0 || f.TypicalMinutes > minutesOfADay {
			return nil, fmt.Errorf("adjudication: fee schedule %s: fees[%d] is out of range", spec.Version, i)
		}
		s.fees[key] = f
	}
	return s, nil
}

// ID returns the schedule's id.
func (s *FeeSchedule) ID() string { return s.id }

// Version returns the version as decisions record it.
func (s *FeeSchedule) Version() string { return s.version }

// fee returns the price for the first modifier that has its own, else the
// procedure's.
func (s *FeeSchedule) fee(procedure string, modifiers []string) (Fee, bool) {
	key, ok := keyOf(procedure)
	if !ok {
		return Fee{}, false
	}
	for _, m := range modifiers {
		if mod, ok := keyOf(m); ok {
			if f, ok := s.fees[feeKey{key, mod}]; ok {
				return f, true
			}
		}
	}
	f, ok := s.fees[feeKey{procedure: key}]
	return f, ok
}

func feeKeyOf(procedure, modifier string) (feeKey, bool) {
	p, ok := keyOf(procedure)
	if !ok {
		return feeKey{}, false
	}
	if modifier == "" {
		return feeKey{procedure: p}, true
	}
	m, ok := keyOf(modifier)
	return feeKey{p, m}, ok
}
