package x12

import (
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/problem"
)

// RefusedFile rebuilds from a file's problems what its 999 needs, for a file
// that was refused whole and whose content was not kept. kind is File.Kind.
// What no problem mentions, such as sets beyond the limit of problems, can't
// be acknowledged.
func RefusedFile(kind string, problems []problem.Problem) *File {
	f := &File{}
	version := map[string]string{"837P": "005010X222A1", "837I": "005010X223A2"}[kind]
	for i := range problems {
		p := &problems[i]
		at := map[string]string{}
		var rest []string
		for _, part := range strings.Split(p.X12Path, " / ") {
			name, value, named := strings.Cut(part, " ")
			switch {
			case named && (name == "ISA" || name == "GS" || name == "ST" || name == "segment"):
				at[name] = value
			default:
				rest = append(rest, part)
			}
		}
		if at["ISA"] == "" {
			continue
		}
		ic := f.interchange(at["ISA"])
		if code, ok := strings.CutPrefix(p.Code, "TA105:"); ok {
			if !ic.Rejected {
				ic.Code = code
			}
			ic.Rejected = true
		}
		if at["GS"] == "" {
			continue
		}
		g := ic.group(at["GS"], version)
		if code, ok := strings.CutPrefix(p.Code, "AK905:"); ok {
			if g.Rejected = true; len(g.Codes) < 5 && !contains(g.Codes, code) {
				g.Codes = append(g.Codes, code)
			}
		}
		if at["ST"] == "" {
			continue
		}
		s := g.one(at["ST"])
		if code, ok := strings.CutPrefix(p.Code, "IK502:"); ok {
			if len(s.Codes) < 5 && !contains(s.Codes, code) {
				s.Codes = append(s.Codes, code)
			}
			continue
		}
		fault := Fault{Rule: p.RuleID}
		for _, c := range strings.Fields(p.Code) {
			if v, ok := strings.CutPrefix(c, "IK304:"); ok {
				fault.SegmentCode = v
			}
			if v, ok := strings.CutPrefix(c, "IK403:"); ok {
				fault.ElementCode = v
			}
		}
		if fault.SegmentCode == "" || len(rest) == 0 {
			continue
		}
		fault.Ordinal, _ = strconv.Atoi(at["segment"])
		if len(rest) > 1 {
			fault.Loop = rest[0]
		}
		fault.Segment = rest[len(rest)-1]
		if fault.ElementCode != "" {
			fault.Segment, fault.Element, fault.Component = cutElement(fault.Segment)
		}
		s.Faults = append(s.Faults, fault)
		if len(s.Codes) < 5 && !contains(s.Codes, "5") {
			s.Codes = append(s.Codes, "5")
		}
	}
	for _, ic := range f.Interchanges {
		for _, g := range ic.Groups {
			g.Declared = len(g.Sets)
		}
	}
	return f
}

// cutElement splits "HI01-2" into segment, element and component.
func cutElement(s string) (string, int, int) {
	s, comp, _ := strings.Cut(s, "-")
	i := len(s) - 2
	if i < 2 || !digits(s[i:]) {
		return s, 0, 0
	}
	c, _ := strconv.Atoi(comp)
	return s[:i], atoi(s[i:]), c
}

func (f *File) interchange(control string) *Interchange {
	for _, ic := range f.Interchanges {
		if ic.Control == control {
			return ic
		}
	}
	ic := &Interchange{Control: control, Code: "000"}
	f.Interchanges = append(f.Interchanges, ic)
	return ic
}

func (ic *Interchange) group(control, version string) *Group {
	for _, g := range ic.Groups {
		if g.Control == control {
			return g
		}
	}
	g := &Group{FunctionalID: "HC", Control: control, Version: version}
	ic.Groups = append(ic.Groups, g)
	return g
}

func (g *Group) one(control string) *Set {
	for _, s := range g.Sets {
		if s.Control == control {
			return s
		}
	}
	s := &Set{ID: "837", Control: control, Version: g.Version, Rejected: true}
	g.Sets = append(g.Sets, s)
	return s
}
