// Package edits reads the tables of claim edits that CMS publishes every
// quarter: National Correct Coding Initiative procedure-to-procedure pairs
// and medically unlikely edits, as tab separated text or CSV in CMS's own
// layout.
//
// What stands before the table (licence lines, titles) is passed over;
// columns are found by their headings, in any order. Inside the table
// nothing is guessed: one row that doesn't hold to the layout refuses the
// file, and every such row is named by its line, up to a bound.
//
// Rows are held in a compact form, sorted, and cut into chunks at places that
// depend on the rows alone, so that quarters that share rows share chunks.
package edits

import (
	"slices"
	"strings"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
)

// Bounds of a file.
const (
	// MaxBytes is several times the largest table CMS has published.
	MaxBytes = 512 << 20
	// MaxRows likewise.
	MaxRows = 8_000_000
	// maxPreamble is how many lines may stand before the headings.
	maxPreamble = 60
	// maxRationales bounds the different texts; CMS has about twenty.
	maxRationales = 2000
	maxRationale  = 300
	maxFaults     = 100
)

// Table is a table as read: pairs or units, sorted by code, and the texts
// their rationales name.
type Table struct {
	Kind       policiesv1.EditTable
	Pairs      []Pair
	Units      []Unit
	Rationales []string
}

// Code is a HCPCS or CPT code: five letters and digits.
type Code [5]byte

func (c Code) String() string { return string(c[:]) }

// Pair is a procedure-to-procedure edit. Days are numbers CCYYMMDD, both in
// force; Deletion 0 is none.
type Pair struct {
	One, Two            Code
	Effective, Deletion uint32
	Indicator           uint8
	Rationale           uint16
}

// Unit is a medically unlikely edit.
type Unit struct {
	Procedure Code
	Units     uint32
	Indicator uint8
	Rationale uint16
}

// Rows counts.
func (t *Table) Rows() int { return len(t.Pairs) + len(t.Units) }

// Setting is the engine's for a table.
func Setting(kind policiesv1.EditTable) adjudication.Setting {
	switch kind {
	case policiesv1.EditTable_EDIT_TABLE_PTP_HOSPITAL, policiesv1.EditTable_EDIT_TABLE_MUE_HOSPITAL:
		return adjudication.OutpatientHospital
	case policiesv1.EditTable_EDIT_TABLE_MUE_SUPPLIER:
		return adjudication.Supplier
	}
	return adjudication.Practitioner
}

// HoldsPairs tells pairs from unit limits.
func HoldsPairs(kind policiesv1.EditTable) bool {
	return kind == policiesv1.EditTable_EDIT_TABLE_PTP_PRACTITIONER || kind == policiesv1.EditTable_EDIT_TABLE_PTP_HOSPITAL
}

// Name is a table's short name, "ptp-practitioner", as versions and commands have it.
func Name(kind policiesv1.EditTable) string {
	name := strings.TrimPrefix(kind.String(), "EDIT_TABLE_")
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

// Kind is the table of a short name.
func Kind(name string) (policiesv1.EditTable, bool) {
	for n := range policiesv1.EditTable_name {
		if kind := policiesv1.EditTable(n); n != 0 && Name(kind) == name {
			return kind, true
		}
	}
	return 0, false
}

// Names lists the tables' short names.
func Names() []string {
	var out []string
	for n := range policiesv1.EditTable_name {
		if n != 0 {
			out = append(out, Name(policiesv1.EditTable(n)))
		}
	}
	slices.Sort(out)
	return out
}

// FirstDay is the first day of a quarter, "2026Q1", as an ISO 8601 date;
// false for anything else.
func FirstDay(quarter string) (string, bool) {
	if len(quarter) != 6 || quarter[4] != 'Q' || quarter[5] < '1' || quarter[5] > '4' {
		return "", false
	}
	return quarter[:4] + "-" + []string{"01", "04", "07", "10"}[quarter[5]-'1'] + "-01", true
}

// Reason is what a pair's rationale means to the engine, by the wording CMS
// uses. What it doesn't know is taken for a component: the second procedure
// is part of the first, which is what most pairs say.
func Reason(rationale string) adjudication.PairReason {
	r := strings.ToLower(rationale)
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(r, w) })
	}
	switch {
	case has("mutually exclusive", "gender", "sex-specific", "sex specific"):
		return adjudication.PairExclusive
	case has("misuse", "coding instruction", "procedure code definition", "cpt manual", "cms manual"):
		return adjudication.PairIncompatible
	}
	return adjudication.PairComponent
}
