package x12

import (
	"io"
	"sort"

	"github.com/probity-health/probity/services/problem"
)

// Write999 writes the implementation acknowledgement (005010X231A1) of a
// parsed file: an interchange for each of the file's, in it one 999 a
// functional group. An interchange that was rejected as such is answered
// with a TA1. Groups that are acknowledgements themselves aren't answered.
//
// Codes: IK501 A accepted, E accepted with claims in error, R rejected;
// AK901 likewise and P where some sets are rejected.
func Write999(w io.Writer, f *File, env Envelope) error {
	if len(f.Interchanges) == 0 {
		return problem.New(problem.Invalid, problem.Problem{RuleID: "x12.999.no-envelope", Message: "the file has no readable interchange envelope to acknowledge",
			Fix: "see the file's problems; correct the ISA segment and send the file again"})
	}
	e := newEncoder(w, env)
	for _, ic := range f.Interchanges {
		if ic.Sender != "" { // the answer goes the other way
			e.env.Sender, e.env.SenderQualifier, e.env.Receiver, e.env.ReceiverQualifier = ic.Receiver, ic.ReceiverQualifier, ic.Sender, ic.SenderQualifier
		}
		if ic.Usage == "T" {
			e.env.Usage = "T"
		}
		e.interchange()
		if ic.Rejected {
			e.seg("TA1", ic.Control, named(ic.Date, e.env.Time.Format("060102")), named(ic.Time, e.env.Time.Format("1504")), "R", ic.Code)
			e.endInterchange()
			continue
		}
		var groups []*Group
		for _, g := range ic.Groups {
			if g.FunctionalID != "FA" {
				groups = append(groups, g)
			}
		}
		if len(groups) > 0 {
			if groups[0].Sender != "" {
				e.env.GroupSender, e.env.GroupReceiver = groups[0].Receiver, groups[0].Sender
			}
			e.group("FA", "005010X231A1")
			for _, g := range groups {
				e.acknowledge(g)
			}
			e.endGroup()
		}
		e.endInterchange()
	}
	return e.err
}

func (e *encoder) acknowledge(g *Group) {
	e.set("999", "005010X231A1")
	e.seg("AK1", g.FunctionalID, g.Control, g.Version)
	accepted, noted := 0, false
	for _, s := range g.Sets {
		if g.Rejected && s.ID != "837" && s.ID != "834" {
			continue
		}
		e.seg("AK2", s.ID, s.Control, s.Version)
		e.errors(s.Faults)
		code := "A"
		switch {
		case s.Rejected:
			code = "R"
		case len(s.Codes) > 0:
			code, noted = "E", true
		}
		if code != "R" {
			accepted++
		}
		ik5 := []any{code}
		for _, c := range s.Codes {
			ik5 = append(ik5, c)
		}
		e.seg("IK5", ik5...)
	}
	code := "A"
	switch {
	case g.Rejected || accepted == 0:
		code = "R"
	case accepted < len(g.Sets):
		code = "P"
	case noted:
		code = "E"
	}
	ak9 := []any{code, itoa(g.Declared), itoa(len(g.Sets)), itoa(accepted)}
	for _, c := range g.Codes {
		ak9 = append(ak9, c)
	}
	e.seg("AK9", ak9...)
	e.endSet()
}

// errors writes the IK3 and IK4 segments of a set, in the order of its
// segments, one IK3 a segment and kind of error. No bad value is copied (IK404).
func (e *encoder) errors(faults []Fault) {
	faults = append([]Fault(nil), faults...)
	sort.SliceStable(faults, func(i, j int) bool { return faults[i].Ordinal < faults[j].Ordinal })
	type key struct {
		segment, loop, code string
		ordinal             int
	}
	var last key
	written := map[composite3]bool{}
	for _, f := range faults {
		k := key{f.Segment, f.Loop, f.SegmentCode, f.Ordinal}
		if k != last {
			e.seg("IK3", f.Segment, itoa(f.Ordinal), short(f.Loop, 4), f.SegmentCode) // IK303 has room for the loop's number
			last = k
			clear(written)
		}
		at := composite3{f.Element, f.Component, f.ElementCode}
		if f.Element == 0 || f.ElementCode == "" || written[at] {
			continue
		}
		written[at] = true
		pos := composite{itoa(f.Element)}
		if f.Component > 0 {
			pos = append(pos, itoa(f.Component))
		}
		e.seg("IK4", pos, "", f.ElementCode)
	}
}

type composite3 struct {
	element, component int
	code               string
}
