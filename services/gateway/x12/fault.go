package x12

import (
	"fmt"
	"strings"

	"github.com/probity-health/probity/services/problem"
)

// scope is what a fault rejects.
type scope int

const (
	inClaim scope = iota
	inMember
	inPatient
	inSubscriber
	inBilling
	inSet
)

// Fault is one thing wrong inside a transaction set.
type Fault struct {
	Rule string
	// Segment and Ordinal (ST is 1) say where; Loop is the guide's loop id.
	Segment string
	Ordinal int
	Loop    string
	// Element and Component count from 1; 0 is the segment as a whole.
	Element, Component int
	// SegmentCode is IK304, ElementCode IK403; empty for faults that are no
	// matter of syntax and are told by the 277CA alone.
	SegmentCode, ElementCode string
	// Status is the 277CA's answer, "category:status" or "category:status:entity".
	Status       string
	Message, Fix string

	scope scope
}

// place names where the fault is within its transaction set.
func (f *Fault) place() string {
	at := f.Segment
	if f.Element > 0 {
		at = fmt.Sprintf("%s%02d", f.Segment, f.Element)
		if f.Component > 0 {
			at += fmt.Sprintf("-%d", f.Component)
		}
	}
	if f.Loop != "" {
		return fmt.Sprintf("segment %d / %s / %s", f.Ordinal, f.Loop, at)
	}
	return fmt.Sprintf("segment %d / %s", f.Ordinal, at)
}

func (f *Fault) problem(setPath string) problem.Problem {
	return problem.Problem{RuleID: f.Rule, X12Path: setPath + " / " + f.place(), Code: f.codes(), Message: f.Message, Fix: f.Fix}
}

// codes are the standard's codes of the fault, e.g. "IK304:8 IK403:7 A7:126:85":
// what the 999 says of segment and element and what the 277CA says of the claim.
func (f *Fault) codes() string {
	var out []string
	if f.SegmentCode != "" {
		out = append(out, "IK304:"+f.SegmentCode)
	}
	if f.ElementCode != "" {
		out = append(out, "IK403:"+f.ElementCode)
	}
	if f.Status != "" {
		out = append(out, f.Status)
	}
	return strings.Join(out, " ")
}

// namable are the 277CA entity codes (STC01-3) of those an 837 names.
const namable = " 40 41 71 72 77 82 85 87 DK DN DQ GB IL PR QB QC "

// entityOf is the entity code of a loop that names someone, or "".
func (g *grammar) entityOf(loop string) string {
	code := g.roleOf(loop)
	if loop == "2330A" {
		code = "GB"
	}
	if !strings.Contains(namable, " "+code+" ") {
		return ""
	}
	return code
}

// roleOf is the entity identifier that a loop's NM1 carries (NM101), empty for
// a loop that names nobody.
func (g *grammar) roleOf(loop string) string {
	l := g.loops[loop]
	if l == nil || l.segs[0].id != "NM1" {
		return ""
	}
	return l.segs[0].elems[0].codes[0]
}

// statusOf is the claim status code (X12 external list 508) that tells best
// what is wrong with an element; 0 of an element is the segment.
func (g *grammar) statusOf(loop, segment string, element int) string {
	entity := g.entityOf(loop)
	code := "21" // missing or invalid information
	switch segment {
	case "NM1":
		switch {
		case loop == "2010BA" && element == 9:
			code = "164" // entity's contract or member number
		case loop == "2010BB" && element == 9, loop == "2330B" && element == 9:
			code = "479" // payer id
		case element >= 8:
			code = "562" // entity's NPI
		case entity != "":
			code = "125" // entity's name
		}
	case "N3", "N4":
		code = "126" // entity's address
	case "DMG":
		code = "158" // entity's date of birth
		if element == 3 {
			code = "157" // entity's gender
		}
	case "PAT":
		code = "156" // patient relationship to subscriber
	case "CLM":
		switch element {
		case 1:
			code = "478" // claim submitter's identifier
		case 2:
			code = "178" // submitted charges
		case 5:
			code = "249" // place of service
		}
	case "HI":
		code = "255" // diagnosis code
	case "DTP":
		code = "187" // dates of service
		if !strings.HasPrefix(loop, "24") {
			code = "188" // statement from-through dates
		}
	case "SV1", "SV2":
		switch {
		case element == 0: // the segment as a whole
			element = 1
		case segment == "SV2":
			element-- // SV2 has the revenue code in front
		}
		switch element {
		case 0:
			code = "455" // revenue code for services rendered
		case 1:
			code = "454" // procedure code for services rendered
		case 2:
			code = "178" // submitted charges
		case 4:
			code = "476" // units of service
		case 7:
			code = "477" // diagnosis pointer
		}
	case "LX":
		code = "247" // line information
	case "SVD", "CAS", "AMT", "OI":
		if strings.HasPrefix(loop, "23") || loop == "2430" {
			code = "286" // other payer's explanation of benefits
		}
	}
	if entity != "" && code != "21" {
		return code + ":" + entity
	}
	return code
}
