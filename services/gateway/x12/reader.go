package x12

import (
	"errors"
	"fmt"
	"io"
	"strings"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/problem"
)

// transaction is what a reader reads; groups and sets of other kinds are refused.
type transaction struct {
	function, set string            // GS01, ST01
	guides        map[string]string // kind by GS08
	holds         string            // for messages: what the groups hold
	versions      string            // for messages: GS08 as listed
}

var (
	claimFiles  = transaction{function: "HC", set: "837", guides: kinds, holds: "health care claims", versions: "005010X222A1, X222A2, X223A2, X223A3"}
	memberFiles = transaction{function: "BE", set: "834", guides: map[string]string{"005010X220A1": "834", "005010X220": "834"},
		holds: "benefit enrolments", versions: "005010X220A1"}
)

// kinds are the implementation guides of claims that are read, by GS08.
var kinds = map[string]string{
	"005010X222A1": "837P", "005010X222A2": "837P", "005010X222": "837P",
	"005010X223A2": "837I", "005010X223A3": "837I", "005010X223A1": "837I", "005010X223": "837I",
}

// reader walks the envelope of a file: interchanges, groups, transaction sets.
type reader struct {
	file  *File
	tok   *tokenizer
	takes transaction

	ic    *Interchange
	group *Group
	set   *Set
	// parser of the open set; nil where the set isn't one that is read.
	parser *setParser
	// segments of the open set so far, ST included.
	segments int
	// controls of the open interchange's groups and the open group's sets.
	groupControls, setControls map[string]bool

	setIndex, claimIndex int // of the open set in the file, of the next claim in it
	marking              bool
	sinceMark            int
	// sink takes each finished claim, members each finished member; false ends reading.
	sink    func(*openClaim) bool
	members func(*openMember) bool
	stopped bool
}

func newReader(f *File, t *tokenizer, takes transaction) *reader {
	rd := &reader{file: f, tok: t, takes: takes, setIndex: -1}
	f.marks = append(f.marks, mark{state: rd.snapshot()})
	return rd
}

// snapshot copies the state as it is before the current segment.
func (rd *reader) snapshot() *reader {
	c := *rd
	c.file, c.sink, c.members, c.marking, c.groupControls, c.setControls = nil, nil, nil, false, nil, nil
	c.tok = &tokenizer{d: rd.tok.d}
	if rd.parser != nil {
		c.parser = rd.parser.clone()
	}
	return &c
}

// resume continues from a snapshot on a scratch file, touching nothing shared.
func (rd *reader) resume(t *tokenizer) *reader {
	c := *rd
	c.file, c.tok = &File{limits: Limits{Problems: 1}.withDefaults()}, t
	c.groupControls, c.setControls = map[string]bool{}, map[string]bool{}
	if rd.ic != nil {
		c.ic = &Interchange{Control: rd.ic.Control}
	}
	if rd.group != nil {
		c.group = &Group{Control: rd.group.Control, Version: rd.group.Version, FunctionalID: rd.group.FunctionalID}
	}
	if rd.set != nil {
		c.set = &Set{ID: rd.set.ID, Control: rd.set.Control, Version: rd.set.Version}
	}
	if rd.parser != nil {
		c.parser = rd.parser.clone()
		c.attach()
	}
	return &c
}

// attach ties the open set's parser to this reader.
func (rd *reader) attach() {
	rd.parser.report = rd.fault
	switch build := rd.parser.build.(type) {
	case *builder:
		build.done = func(o *openClaim, b *builder) {
			rd.set.Reference, rd.set.Submitter, rd.set.Receiver = b.reference, b.submitter, b.receiver
			if !rd.stopped && !rd.sink(o) {
				rd.stopped = true
			}
			rd.claimIndex++
			rd.sinceMark++
		}
	case *memberBuilder:
		build.done = func(o *openMember) {
			rd.set.Reference = build.reference
			if !rd.stopped && !rd.members(o) {
				rd.stopped = true
			}
			rd.claimIndex++
		}
	}
}

// run reads to the end of the file, or until the sink has enough. The error
// is the source's; what the sender did wrong goes to the file.
func (rd *reader) run() error {
	for !rd.stopped {
		var s *Segment
		var err error
		if rd.ic == nil {
			s, err = rd.tok.interchange()
		} else {
			s, err = rd.tok.next()
		}
		if err == nil { // as for every segment but the last
			rd.segment(s)
			continue
		}
		var bad *tokenError
		switch {
		case errors.As(err, &bad):
			rd.broken(bad)
			return nil
		case errors.Is(err, io.EOF):
			if rd.ic != nil {
				rd.interchangeFault("023", "x12.interchange.no-iea", "the interchange has no IEA segment", "send the whole interchange; it looks cut off")
				rd.closeAll()
			} else if len(rd.file.Interchanges) == 0 && rd.setIndex < 0 {
				rd.file.note(problem.Problem{RuleID: "x12.interchange.no-isa", X12Path: "byte 1", Message: "the file is empty", Fix: "send a complete X12 interchange, from ISA to IEA"})
			}
			return nil
		default:
			return err
		}
	}
	return nil
}

// broken ends reading at a byte stream that can't be cut into segments.
func (rd *reader) broken(bad *tokenError) {
	path := rd.path()
	if bad.element != "" {
		path = strings.TrimPrefix(path+" / "+bad.element, " / ")
	}
	if path == "" {
		path = fmt.Sprintf("byte %d", rd.tok.offset+1)
	}
	rd.file.note(problem.Problem{RuleID: bad.rule, X12Path: path, Message: bad.msg, Fix: bad.fix})
	if rd.ic != nil {
		rd.ic.Rejected, rd.ic.Code = true, "022" // invalid control structure
		rd.closeAll()
	}
}

// closeAll closes what a lost rest of the interchange leaves open.
func (rd *reader) closeAll() {
	rd.endSet("2")
	if rd.group != nil {
		rd.groupFault("3", "x12.group.no-ge", "the group has no GE segment", "close each group with GE")
		rd.group = nil
	}
	rd.ic = nil
}

func (rd *reader) segment(s *Segment) {
	switch s.ID {
	case "ISA":
		if rd.ic != nil {
			rd.interchangeFault("023", "x12.interchange.no-iea", "the interchange has no IEA segment", "close each interchange with IEA")
			rd.closeAll()
		}
		rd.openInterchange(s)
	case "GS":
		rd.endSet("2")
		rd.tooMany(s, 8)
		if rd.group != nil {
			rd.groupFault("3", "x12.group.no-ge", "the group has no GE segment", "close each group with GE")
		}
		rd.openGroup(s)
	case "ST":
		rd.endSet("2")
		if rd.group == nil {
			rd.interchangeFault("022", "x12.interchange.structure", "a transaction set stands outside a group", "put transaction sets between GS and GE")
			return
		}
		rd.openSet(s)
	case "SE":
		if rd.set == nil {
			rd.interchangeFault("022", "x12.interchange.structure", "an SE segment has no ST", "pair each SE with an ST")
			return
		}
		rd.closeSet(s)
	case "GE":
		rd.endSet("2")
		rd.tooMany(s, 2)
		if rd.group == nil {
			rd.interchangeFault("022", "x12.interchange.structure", "a GE segment has no GS", "pair each GE with a GS")
			return
		}
		rd.closeGroup(s)
	case "IEA":
		rd.tooMany(s, 2)
		rd.closeInterchange(s)
	case "TA1":
		if rd.set == nil && rd.group == nil {
			return // an interchange acknowledgement may precede the groups
		}
		fallthrough
	default:
		switch {
		case rd.set == nil:
			rd.interchangeFault("022", "x12.interchange.structure", "a segment stands outside a transaction set", "put every segment between ST and SE")
		case rd.parser == nil:
			rd.segments++
		default:
			rd.segments++
			if s.ID == "CLM" || s.ID == "HL" {
				rd.parser.endClaim()
				if rd.stopped {
					return
				}
				if rd.marking && rd.sinceMark >= markEvery {
					rd.sinceMark = 0
					rd.segments--
					rd.file.marks = append(rd.file.marks, mark{offset: s.offset, state: rd.snapshot()})
					rd.segments++
				}
			}
			rd.parser.step(s)
		}
	}
}

func (rd *reader) openInterchange(s *Segment) {
	rd.ic = &Interchange{
		SenderQualifier: s.El(5), Sender: strings.TrimSpace(s.El(6)), ReceiverQualifier: s.El(7), Receiver: strings.TrimSpace(s.El(8)),
		Date: s.El(9), Time: s.El(10), Control: s.El(13), Usage: s.El(15), Code: "000",
	}
	rd.groupControls = map[string]bool{}
	rd.file.Interchanges = append(rd.file.Interchanges, rd.ic)
	if !digits(rd.ic.Control) {
		rd.ic.Control = ""
		rd.interchangeFault("018", "x12.interchange.control-number", "the interchange control number is not nine digits", "send nine digits in ISA13")
	}
	switch {
	case s.El(12) != "00501":
		rd.interchangeFault("017", "x12.interchange.version", "the interchange control version is not 00501", "send 00501 in ISA12")
	case rd.ic.Usage != "P" && rd.ic.Usage != "T":
		rd.interchangeFault("020", "x12.interchange.usage", "the usage indicator is neither P nor T", "send P or T in ISA15")
	}
}

func (rd *reader) openGroup(s *Segment) {
	g := &Group{FunctionalID: s.El(1), Sender: s.El(2), Receiver: s.El(3), Control: s.El(6), Version: s.El(8)}
	rd.group, rd.setControls = g, map[string]bool{}
	rd.ic.Groups = append(rd.ic.Groups, g)
	switch {
	case !digits(g.Control) || len(g.Control) > 9:
		g.Control = "0"
		rd.groupFault("6", "x12.group.control-number", "the group control number is not one to nine digits", "send a number in GS06")
	case rd.groupControls[g.Control]:
		rd.groupFault("19", "x12.group.control-number", "the group control number repeats in the interchange", "number each group of an interchange differently")
	}
	rd.groupControls[g.Control] = true
	switch {
	case g.FunctionalID != rd.takes.function:
		g.FunctionalID = shortCode(g.FunctionalID)
		rd.groupFault("1", "x12.group.function", "the group doesn't hold "+rd.takes.holds, "send functional identifier "+rd.takes.function+" in GS01")
	case rd.takes.guides[g.Version] == "":
		g.Version = shortCode(g.Version)
		rd.groupFault("2", "x12.group.version", "the version is none of "+rd.takes.versions, "send an "+rd.takes.set+" of a version listed")
	}
}

// shortCode keeps a code only while it can be one, so that it may be repeated in an answer.
func shortCode(s string) string {
	for i := range len(s) {
		if !alphanumeric(s[i]) {
			return ""
		}
	}
	return s[:min(len(s), 12)]
}

func (rd *reader) openSet(s *Segment) {
	set := &Set{ID: shortCode(s.El(1)), Control: s.El(2), Version: s.El(3)}
	rd.set, rd.segments = set, 1
	rd.setIndex++
	rd.claimIndex = 0
	rd.parser = nil
	rd.group.Sets = append(rd.group.Sets, set)
	rd.file.sets = append(rd.file.sets, set)
	if more(s, 3) {
		rd.setFault("5", ruleTooMany, "ST", 4, "the segment has more than 3 elements", fixTooMany)
	}
	if n := len(set.Control); n < 4 || n > 9 || shortCode(set.Control) != set.Control {
		set.Control = shortCode(set.Control[:min(9, n)])
		rd.setFault("7", "x12.set.control-number", "ST", 2, "the transaction set control number is not four to nine letters and digits", "send four to nine digits in ST02")
	} else if rd.setControls[set.Control] {
		rd.setFault("23", "x12.set.control-number", "ST", 2, "the transaction set control number repeats in the group", "number each transaction set of a group differently")
	}
	rd.setControls[set.Control] = true
	if set.ID != rd.takes.set {
		rd.setFault("1", "x12.set.unsupported", "ST", 1, "the transaction set is not an "+rd.takes.set, "send "+rd.takes.holds+" in "+rd.takes.set+" transaction sets")
		return
	}
	if set.Version != "" && set.Version != rd.group.Version {
		set.Version = shortCode(set.Version)
		rd.setFault("I6", "x12.set.version", "ST", 3, "ST03 names another implementation guide than GS08", "send the same version in both")
		return
	}
	if rd.takes.set == "834" {
		if rd.takes.guides[rd.group.Version] == "" {
			return
		}
		rd.parser = &setParser{g: enrollment(), build: &memberBuilder{}}
		rd.attach()
		rd.parser.open()
		return
	}
	g, form := professional(), claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL
	switch kinds[rd.group.Version] {
	case "837I":
		g, form = institutional(), claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL
	case "":
		return
	}
	rd.parser = &setParser{g: g, build: &builder{form: form, place: &claimsv1.X12Place{
		InterchangeControlNumber: rd.ic.Control, GroupControlNumber: rd.group.Control, TransactionControlNumber: set.Control}}}
	rd.attach()
	rd.parser.open()
}

func (rd *reader) closeSet(s *Segment) {
	rd.segments++
	if rd.parser != nil {
		rd.parser.finish()
	}
	if n := s.El(1); !digits(n) || len(n) > 10 || strings.TrimLeft(n, "0") != itoa(rd.segments) {
		rd.setFault("4", "x12.envelope.se-count", "SE", 1, fmt.Sprintf("SE01 is not the number of segments from ST to SE, which is %d", rd.segments),
			"if the set is whole, let SE01 say so; if segments are missing, send all of it")
	}
	if more(s, 2) {
		rd.setFault("5", ruleTooMany, "SE", 3, "the segment has more than 2 elements", fixTooMany)
	}
	if s.El(2) != rd.set.Control {
		rd.setFault("3", "x12.envelope.se-control", "SE", 2, "SE02 is not the control number of ST02", "repeat ST02 in SE02")
	}
	rd.set, rd.parser = nil, nil
}

// endSet closes a set that has no SE.
func (rd *reader) endSet(code string) {
	if rd.set == nil {
		return
	}
	if rd.parser != nil {
		rd.parser.finish()
	}
	rd.setFault(code, "x12.envelope.no-se", "SE", 0, "the transaction set has no SE segment", "close each transaction set with SE")
	rd.set, rd.parser = nil, nil
}

func (rd *reader) closeGroup(s *Segment) {
	g := rd.group
	if n := s.El(1); digits(n) && len(n) <= 6 {
		g.Declared = atoi(n)
	}
	if g.Declared != len(g.Sets) {
		rd.groupFault("5", "x12.envelope.ge-count", fmt.Sprintf("GE01 is not the number of transaction sets of the group, which is %d", len(g.Sets)),
			"if the group is whole, let GE01 say so; if sets are missing, send all of it")
	}
	if s.El(2) != g.Control {
		rd.groupFault("4", "x12.envelope.ge-control", "GE02 is not the control number of GS06", "repeat GS06 in GE02")
	}
	rd.group = nil
}

func (rd *reader) closeInterchange(s *Segment) {
	rd.endSet("2")
	if rd.group != nil {
		rd.groupFault("3", "x12.group.no-ge", "the group has no GE segment", "close each group with GE")
		rd.group = nil
	}
	if n := s.El(1); !digits(n) || len(n) > 5 || atoi(n) != len(rd.ic.Groups) {
		rd.interchangeFault("021", "x12.envelope.iea-count", fmt.Sprintf("IEA01 is not the number of groups of the interchange, which is %d", len(rd.ic.Groups)),
			"if the interchange is whole, let IEA01 say so; if groups are missing, send all of it")
	}
	if s.El(2) != rd.ic.Control {
		rd.interchangeFault("001", "x12.envelope.iea-control", "IEA02 is not the control number of ISA13", "repeat ISA13 in IEA02")
	}
	rd.ic = nil
}

// path names the open envelopes by their control numbers.
func (rd *reader) path() string {
	var parts []string
	if rd.ic != nil {
		parts = append(parts, "ISA "+rd.ic.Control)
		if rd.group != nil {
			parts = append(parts, "GS "+rd.group.Control)
			if rd.set != nil {
				parts = append(parts, "ST "+rd.set.Control)
			}
		}
	}
	return strings.Join(parts, " / ")
}

// tooMany faults an envelope's segment that says more than X12 defines for it.
func (rd *reader) tooMany(s *Segment, n int) {
	if more(s, n) {
		rd.interchangeFault("022", ruleTooMany, fmt.Sprintf("the %s segment has more than %d elements", s.ID, n), fixTooMany)
	}
}

// more tells whether a segment has anything behind its nth element.
func more(s *Segment, n int) bool {
	for i := n + 1; i <= len(s.elems); i++ {
		if s.El(i) != "" {
			return true
		}
	}
	return false
}

const (
	ruleTooMany = "x12.element.too-many"
	fixTooMany  = "leave out what the guide doesn't define; check the delimiters"
)

func (rd *reader) interchangeFault(code, rule, msg, fix string) {
	if rd.ic.Rejected = true; rd.ic.Code == "000" {
		rd.ic.Code = code
	}
	rd.file.note(problem.Problem{RuleID: rule, X12Path: "ISA " + rd.ic.Control, Code: "TA105:" + code, Message: msg, Fix: fix})
}

func (rd *reader) groupFault(code, rule, msg, fix string) {
	g := rd.group
	if g.Rejected = true; len(g.Codes) < 5 && !contains(g.Codes, code) {
		g.Codes = append(g.Codes, code)
	}
	rd.file.note(problem.Problem{RuleID: rule, X12Path: "ISA " + rd.ic.Control + " / GS " + g.Control, Code: "AK905:" + code, Message: msg, Fix: fix})
}

func (rd *reader) setFault(code, rule, segment string, element int, msg, fix string) {
	rd.reject(code)
	at := segment
	if element > 0 {
		at = fmt.Sprintf("%s%02d", segment, element)
	}
	rd.file.note(problem.Problem{RuleID: rule, X12Path: rd.path() + " / segment " + itoa(rd.segments) + " / " + at, Code: "IK502:" + code, Message: msg, Fix: fix})
}

func (rd *reader) reject(code string) {
	rd.set.Rejected = true
	rd.say(code)
}

// say adds one of the set's codes (IK502 to IK506: five at most).
func (rd *reader) say(code string) {
	if len(rd.set.Codes) < 5 && !contains(rd.set.Codes, code) {
		rd.set.Codes = append(rd.set.Codes, code)
	}
}

// fault takes a fault of the open set's parser.
func (rd *reader) fault(f Fault) {
	if f.scope == inSet {
		rd.set.Rejected = true
	}
	if f.SegmentCode != "" {
		rd.say("5")
		if rd.file.faults < rd.file.limits.Problems {
			rd.file.faults++
			rd.set.Faults = append(rd.set.Faults, f)
		}
	}
	rd.file.note(f.problem(rd.path()))
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}
