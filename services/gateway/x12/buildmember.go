package x12

import (
	"fmt"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
)

// openMember is the member being read.
type openMember struct {
	payer, sponsor string
	changes        []*policiesv1.EnrollmentChange
	faults         []Fault
	ordinal        int // of its INS

	insured, relationship, maintenance, reason string // INS01 to INS04
	disabled                                   bool   // INS10
	died                                       string // INS12
	card, group                                string // REF*0F, REF*1L
	begins, ends, takesEffect                  string // DTP 356, 357, 303
	last, first, ownID                         string
	born, sex                                  string
	previousFirst, previousBorn                string
	coverages                                  []*coverage
}

// coverage is one HD loop.
type coverage struct {
	maintenance, line, plan, group string
	begins, ends, takesEffect      string
	otherPrimary                   bool
}

// memberBuilder turns the segments of an 834 into changes.
type memberBuilder struct {
	reference, payer, sponsor string
	open                      *openMember
	done                      func(*openMember)
}

func (b *memberBuilder) clone() reading {
	c := *b // no member is open where reading may start again
	return &c
}

func (b *memberBuilder) keep(f Fault) {
	if f.scope == inMember && b.open != nil && len(b.open.faults) < scopeFaults {
		b.open.faults = append(b.open.faults, f)
	}
}

func (b *memberBuilder) enter(loop string) {
	switch loop {
	case "2000":
		b.open = &openMember{payer: b.payer, sponsor: b.sponsor}
	case "2300":
		b.open.coverages = append(b.open.coverages, &coverage{})
	}
}

func (b *memberBuilder) leave(p *setParser, loop string) {
	if loop != "2000" {
		return
	}
	o := b.open
	o.complete(p)
	b.open = nil
	b.done(o)
}

func (b *memberBuilder) take(p *setParser, loop string, s *Segment) {
	switch loop {
	case "ST":
		if s.ID == "BGN" {
			b.reference = s.El(2)
		}
	case "1000A":
		b.sponsor = s.El(4)
	case "1000B":
		b.payer = s.El(4)
	case "2000":
		if s.ID == "INS" {
			b.open.ordinal = p.ordinal
		}
		b.open.member(s)
	case "2100A":
		switch s.ID {
		case "NM1":
			b.open.last, b.open.first = s.El(3), s.El(4)
			if s.El(8) == "ZZ" { // 34 is a social security number, no card
				b.open.ownID = s.El(9)
			}
		case "DMG":
			b.open.born, _ = isoDate(s.El(2))
			b.open.sex = s.El(3)
		}
	case "2100B":
		switch s.ID {
		case "NM1":
			b.open.previousFirst = s.El(4)
		case "DMG":
			b.open.previousBorn, _ = isoDate(s.El(2))
		}
	case "2300":
		b.open.coverages[len(b.open.coverages)-1].take(s)
	case "2320":
		// COB01 is the other payer's place in the sequence; COB03 6 says there
		// is nothing to coordinate.
		if s.ID == "COB" && s.El(1) == "P" && s.El(3) != "6" {
			b.open.coverages[len(b.open.coverages)-1].otherPrimary = true
		}
	}
}

func (o *openMember) member(s *Segment) {
	switch s.ID {
	case "INS":
		o.insured, o.relationship, o.maintenance, o.reason = s.El(1), s.El(2), s.El(3), s.El(4)
		o.disabled = s.El(10) == "Y"
		o.died, _ = isoDate(s.El(12))
	case "REF":
		switch s.El(1) {
		case "0F":
			o.card = s.El(2)
		case "1L":
			o.group = s.El(2)
		}
	case "DTP":
		day, _ := isoDate(s.El(3))
		switch s.El(1) {
		case "356":
			o.begins = day
		case "357":
			o.ends = day
		case "303":
			o.takesEffect = day
		}
	}
}

func (c *coverage) take(s *Segment) {
	switch s.ID {
	case "HD":
		c.maintenance, c.line, c.plan = s.El(1), s.El(3), s.El(4)
	case "REF":
		if s.El(1) == "1L" {
			c.group = s.El(2)
		}
	case "DTP":
		day, ok := isoDate(s.El(3))
		if !ok {
			day, _, _ = isoRange(s.El(3))
		}
		switch s.El(1) {
		case "348":
			c.begins = day
		case "349":
			c.ends = day
		case "303":
			c.takesEffect = day
		}
	}
}

// maintenance types, INS03 and HD01. 002 deletes a coverage, 026 corrects
// one; 032 says that the loop tells nothing.
var maintenance = map[string]policiesv1.MaintenanceType{
	"001": policiesv1.MaintenanceType_MAINTENANCE_TYPE_CHANGE,
	"026": policiesv1.MaintenanceType_MAINTENANCE_TYPE_CHANGE,
	"021": policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD,
	"024": policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE,
	"002": policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE,
	"025": policiesv1.MaintenanceType_MAINTENANCE_TYPE_REINSTATE,
	"030": policiesv1.MaintenanceType_MAINTENANCE_TYPE_AUDIT,
}

// relationships are INS02 in the terms of 837's PAT01, as far as this payer
// tells them apart: 09 adopted, 10 foster, 15 ward, 17 step children are children.
var relationships = map[string]string{"18": "18", "01": "01", "19": "19", "09": "19", "10": "19", "15": "19", "17": "19"}

// complete makes the member's changes.
func (o *openMember) complete(p *setParser) {
	// One that is no code at all is its own fault.
	if (o.insured == "Y") != (o.relationship == "18") && (o.insured == "Y" || o.insured == "N") && p.g.codes[o.relationship] {
		p.fault(Fault{Rule: "x12.834.relationship", Segment: "INS", Ordinal: o.ordinal, Loop: "2000", Element: 2, SegmentCode: "8", ElementCode: "7", scope: inMember,
			Message: fmt.Sprintf("INS01 is %s%s where INS02 is %s%s", o.insured, meaning("INS01", o.insured), o.relationship, meaning("INS02", o.relationship)),
			Fix:     "send INS01 Y with INS02 18 for the subscriber, and INS01 N with another INS02 for a dependant"})
	}
	if len(o.coverages) == 0 || o.maintenance == "024" && o.noneEnds() {
		o.changes = append(o.changes, o.change(&coverage{maintenance: o.maintenance}))
		return
	}
	for _, c := range o.coverages {
		if c.maintenance != "032" {
			o.changes = append(o.changes, o.change(c))
		}
	}
}

// noneEnds tells whether no coverage is ended by itself: a member's
// termination then ends them all at once.
func (o *openMember) noneEnds() bool {
	for _, c := range o.coverages {
		if c.maintenance == "024" || c.maintenance == "002" {
			return false
		}
	}
	return true
}

func (o *openMember) change(c *coverage) *policiesv1.EnrollmentChange {
	out := &policiesv1.EnrollmentChange{
		MaintenanceType: maintenance[c.maintenance], MaintenanceReason: o.reason,
		MemberId: o.card, RelationshipCode: relationships[o.relationship], LastName: o.last, FirstName: o.first,
		BirthDate: o.born, Sex: o.sex, PreviousFirstName: o.previousFirst, PreviousBirthDate: o.previousBorn,
		GroupNumber: named(c.group, o.group), PlanId: c.plan, InsuranceLine: c.line,
		OtherPayerPrimary: c.otherPrimary, Disabled: o.disabled,
	}
	if out.RelationshipCode == "" {
		out.RelationshipCode = "G8"
	}
	if out.RelationshipCode != "18" && o.ownID != o.card && len(o.ownID) > 1 {
		out.OwnMemberId = o.ownID
	}
	switch out.MaintenanceType {
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE:
		out.EndDate = named(c.ends, named(o.ends, o.died))
	default:
		out.StartDate = named(c.begins, named(c.takesEffect, named(o.begins, o.takesEffect)))
		out.EndDate = named(c.ends, o.ends)
	}
	return out
}
