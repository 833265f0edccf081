package x12

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// A grammar is an implementation guide as data: loops, the segments in them
// and their elements. It is written as text (see grammar837p.go):
//
//	loop 2010AA 150 R 1            loop id, position, usage, repeat (* unbounded)
//	150 R 1 NM1 R!=85 R=1,2 R60    position, usage, max use, segment id, elements
//	use 2300                       a loop defined before
//
// An element is its usage (R required, S situational, N not used) and its type:
//
//	=A,B   one of the codes; != also tells this segment from its namesakes
//	60     text of at most 60 characters; 2-2 at least and at most
//	r n d t  decimal, whole number, CCYYMMDD date, time
//	p      date in the format the element before names
//	(…;…)  a composite; x11 after it repeats the element
//
// Indentation by tabs nests loops. What isn't listed after the last element is not used.
type grammar struct {
	root *loop
	// known are the segment ids that occur anywhere in it.
	known map[string]bool
	// codes are all that any element of it may be.
	codes map[string]bool
	loops map[string]*loop
	// scope says what a fault in a loop rejects; nil: as in claims.
	scope func(loop string) scope
}

type loop struct {
	id       string
	pos, max int // max 0: unbounded
	required bool
	segs     []*segmentSpec // segs[0] starts the loop
	kids     []*loop
}

type segmentSpec struct {
	id       string
	tag      uint32 // of id
	pos, max int
	required bool
	elems    []elementSpec
}

type elementSpec struct {
	usage    byte
	kind     byte // '=' codes, 'a' text, 'r', 'n', 'd', 't', 'p', '(' composite
	tells    bool // must match for the segment to be this one
	min, max int
	codes    []string
	comps    []elementSpec
}

// tagOf is a segment id as a number, which the grammar compares some fifty
// times a segment; 0 for what is longer than any id.
func tagOf(id string) uint32 {
	if len(id) > 3 {
		return 0
	}
	tag := uint32(len(id) + 1)
	for i := range len(id) {
		tag = tag<<8 | uint32(id[i])
	}
	return tag
}

// matches tells whether s is this segment: its id and every telling code.
func (sp *segmentSpec) matches(s *Segment) bool {
	if sp.tag != s.tag {
		return false
	}
	for i := range sp.elems {
		e := &sp.elems[i]
		switch {
		case e.tells && !e.has(s.El(i+1)):
			return false
		case e.kind == '(' && e.comps[0].tells && !e.comps[0].has(s.Comp(i+1, 1)):
			return false
		}
	}
	return true
}

func (e *elementSpec) has(code string) bool {
	for _, c := range e.codes {
		if c == code {
			return true
		}
	}
	return false
}

// elementCount is how many elements X12 005010 defines for a segment; one more is too many.
var elementCount = map[string]int{
	"BHT": 6, "NM1": 12, "PER": 9, "HL": 4, "PRV": 6, "CUR": 21, "N2": 2, "N3": 2, "N4": 7, "REF": 4, "SBR": 9, "PAT": 9,
	"DMG": 11, "CLM": 20, "DTP": 3, "CL1": 4, "PWK": 9, "CN1": 6, "AMT": 3, "K3": 3, "NTE": 2, "CR1": 10, "CR2": 12, "CR3": 5,
	"CRC": 7, "HI": 12, "HCP": 15, "CAS": 19, "OI": 6, "MIA": 24, "MOA": 9, "LX": 1, "SV1": 21, "SV2": 10, "SV5": 7,
	"BGN": 9, "N1": 6, "ACT": 9, "INS": 17, "EC": 7, "ICM": 5, "HLH": 7, "LUI": 5, "DSB": 8, "HD": 11, "IDC": 4, "PLA": 6, "COB": 4,
	"LS": 1, "LE": 1, "QTY": 4, "MEA": 12, "PS1": 3, "LIN": 31, "CTP": 11, "SVD": 6, "LQ": 2, "FRM": 5,
}

var (
	professional  = sync.OnceValue(func() *grammar { return mustGrammar(grammar837P) })
	institutional = sync.OnceValue(func() *grammar { return mustGrammar(grammar837I) })
	enrollment    = sync.OnceValue(func() *grammar {
		g := mustGrammar(grammar834)
		g.scope = func(loop string) scope {
			if strings.HasPrefix(loop, "2") {
				return inMember
			}
			return inSet
		}
		return g
	})
)

// mustGrammar reads a grammar's text. The texts are constants of this
// package, read by its tests: an error here is a defect of the build.
func mustGrammar(text string) *grammar {
	g := &grammar{known: map[string]bool{}, codes: map[string]bool{}, loops: map[string]*loop{}}
	var stack []*loop
	for i, line := range strings.Split(text, "\n") {
		body := strings.TrimLeft(line, "\t")
		if body == "" {
			continue
		}
		depth := len(line) - len(body)
		f := strings.Fields(body)
		if depth > len(stack) {
			panic(fmt.Sprintf("x12: grammar line %d: indented too far", i+1))
		}
		stack = stack[:depth]
		switch f[0] {
		case "loop":
			l := &loop{id: f[1], pos: number(f[2]), required: f[3] == "R", max: number(f[4])}
			if depth == 0 {
				g.root = l
			} else {
				stack[depth-1].kids = append(stack[depth-1].kids, l)
			}
			g.loops[l.id] = l
			stack = append(stack, l)
		case "use":
			stack[depth-1].kids = append(stack[depth-1].kids, g.loops[f[1]])
		default:
			sp := &segmentSpec{pos: number(f[0]), required: f[1] == "R", max: number(f[2]), id: f[3], tag: tagOf(f[3])}
			if sp.tag == 0 {
				panic(fmt.Sprintf("x12: grammar line %d: no segment id", i+1))
			}
			for _, e := range f[4:] {
				sp.elems = append(sp.elems, parseElement(e)...)
			}
			stack[depth-1].segs = append(stack[depth-1].segs, sp)
			g.known[sp.id] = true
			for _, e := range sp.elems {
				for _, of := range append([]elementSpec{e}, e.comps...) {
					for _, c := range of.codes {
						g.codes[c] = true
					}
				}
			}
		}
	}
	return g
}

func number(s string) int {
	if s == "*" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		panic("x12: grammar: not a number: " + s)
	}
	return n
}

func parseElement(s string) []elementSpec {
	e := elementSpec{usage: s[0], kind: 'a', min: 1}
	s = s[1:]
	if strings.HasPrefix(s, "!") {
		e.tells, s = true, s[1:]
	}
	switch {
	case s == "":
	case s[0] == '=':
		e.kind, e.codes = '=', strings.Split(s[1:], ",")
	case s[0] == '(':
		end := strings.LastIndexByte(s, ')')
		e.kind = '('
		for _, c := range strings.Split(s[1:end], ";") {
			e.comps = append(e.comps, parseElement(c)...)
		}
		if rest := s[end+1:]; rest != "" {
			var all []elementSpec
			for range number(rest[1:]) {
				all = append(all, e)
			}
			return all
		}
	case strings.ContainsRune("rndtp", rune(s[0])):
		e.kind = s[0]
	default:
		lo, hi, both := strings.Cut(s, "-")
		if both {
			e.min = number(lo)
			e.max = number(hi)
		} else {
			e.max = number(lo)
		}
	}
	return []elementSpec{e}
}
