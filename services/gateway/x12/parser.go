package x12

import (
	"fmt"
	"strings"
)

// frame is one open loop.
type frame struct {
	loop *loop
	// pos is the position reached: earlier segments are out of order.
	pos     int
	ordinal int // of the segment that opened it
	segs    []uint16
	kids    []uint16
	hl04    string // of the HL that opened it
}

func newFrame(l *loop, ordinal int) frame {
	return frame{loop: l, pos: l.segs[0].pos, ordinal: ordinal, segs: make([]uint16, len(l.segs)), kids: make([]uint16, len(l.kids))}
}

// push opens a loop in the place, and with the counts, of the last that was closed there.
func (p *setParser) push(l *loop) *frame {
	n := len(p.frames)
	if n == cap(p.frames) {
		p.frames = append(p.frames, newFrame(l, p.ordinal))
		return &p.frames[n]
	}
	p.frames = p.frames[:n+1]
	f := &p.frames[n]
	*f = frame{loop: l, pos: l.segs[0].pos, ordinal: p.ordinal, segs: zeroed(f.segs, len(l.segs)), kids: zeroed(f.kids, len(l.kids))}
	return f
}

func zeroed(counts []uint16, n int) []uint16 {
	if cap(counts) < n {
		return make([]uint16, n, max(n, 32))
	}
	counts = counts[:n]
	clear(counts)
	return counts
}

// reading makes of a set's segments, as the grammar places them, what callers
// get: claims (builder) or members (memberBuilder).
type reading interface {
	enter(loop string)
	take(p *setParser, loop string, s *Segment)
	leave(p *setParser, loop string)
	// keep attaches a fault to what it rejects.
	keep(f Fault)
	clone() reading
}

// setParser walks one transaction set along its grammar. It is a value that
// clone copies, so that reading can start again from a claim in the middle.
type setParser struct {
	g      *grammar
	frames []frame
	// ordinal of the current segment, ST being 1.
	ordinal int
	// lastHL is the highest HL01 so far; the ids of the open levels by depth.
	lastHL int
	hl     [3]string
	// skipping the rest of a loop whose first segment was not understood.
	skipping bool

	build reading
	// report takes each fault as it is found.
	report func(Fault)
}

func (p *setParser) clone() *setParser {
	c := *p
	c.build = p.build.clone()
	c.frames = make([]frame, len(p.frames))
	for i, f := range p.frames {
		f.segs = append([]uint16(nil), f.segs...)
		f.kids = append([]uint16(nil), f.kids...)
		c.frames[i] = f
	}
	return &c
}

// open starts a set with its ST segment.
func (p *setParser) open() {
	p.ordinal = 1
	p.frames = []frame{newFrame(p.g.root, 1)}
	p.frames[0].segs[0] = 1
}

// step takes the next segment of the set, between ST and SE.
func (p *setParser) step(s *Segment) {
	p.ordinal++
	if !p.g.known[s.ID] {
		p.skipping = false
		rule, msg := "x12.segment.unknown", "the segment's id is not one of this transaction set"
		if !validID(s.ID) {
			rule, msg = "x12.segment.id", "the segment's id is not two or three capital letters and digits"
		}
		p.fault(Fault{Rule: rule, Segment: printableID(s.ID), SegmentCode: "1", scope: inSet, Message: msg, Fix: "check the spelling of the segment's id and that the segment before it ends with the terminator, or leave the segment out"})
		return
	}
	if p.skipping && !p.opens(s) && (s.ID == "N2" || s.ID == "N3" || s.ID == "N4" || s.ID == "REF" || s.ID == "PER" || s.ID == "PRV" || s.ID == "DMG") {
		return
	}
	p.skipping = false
	if p.place(s, false) || p.place(s, true) {
		return
	}
	p.unplaced(s)
}

// opens tells whether s starts a loop where the parser stands.
func (p *setParser) opens(s *Segment) bool {
	for i := len(p.frames) - 1; i >= 0; i-- {
		for _, k := range p.frames[i].loop.kids {
			if k.segs[0].matches(s) {
				return true
			}
		}
	}
	return false
}

// place finds the segment's place from the innermost loop outwards. With
// late it also takes places that have been passed, and says so.
func (p *setParser) place(s *Segment, late bool) bool {
	for i := len(p.frames) - 1; i >= 0; i-- {
		f := &p.frames[i]
		over := -1 // a place whose uses are used up
		for j, sp := range f.loop.segs {
			if j == 0 || !sp.matches(s) || (sp.pos < f.pos) != late {
				continue
			}
			if int(f.segs[j]) >= sp.max {
				over = j
				continue
			}
			p.closeTo(i)
			p.accept(&p.frames[i], j, s, late)
			return true
		}
		if over >= 0 {
			p.closeTo(i)
			sp := f.loop.segs[over]
			p.fault(Fault{Rule: "x12.segment.repeated", Segment: s.ID, Loop: f.loop.id, SegmentCode: "5", scope: p.scope(),
				Message: fmt.Sprintf("%s stands more than %d times in loop %s", describe(sp), sp.max, f.loop.id), Fix: fmt.Sprintf("send it at most %d times", sp.max)})
			return true
		}
		for j, k := range f.loop.kids {
			if !k.segs[0].matches(s) || (k.pos < f.pos) != late {
				continue
			}
			p.closeTo(i)
			p.enter(i, j, s, late)
			return true
		}
	}
	return false
}

// accept counts the segment in its place, checks it and hands it on.
func (p *setParser) accept(f *frame, j int, s *Segment, late bool) {
	sp := f.loop.segs[j]
	if late {
		p.outOfOrder(s, f.loop.id)
	} else {
		p.passing(f, sp.pos)
		f.pos = sp.pos
	}
	f.segs[j]++
	p.check(sp, s, f.loop.id)
	p.build.take(p, f.loop.id, s)
}

// enter opens a child loop with the segment that starts it.
func (p *setParser) enter(i, j int, s *Segment, late bool) {
	f := &p.frames[i]
	k := f.loop.kids[j]
	if !late {
		p.passing(f, k.pos)
		f.pos = k.pos
	}
	f.kids[j]++
	// Of a claim's lines and what is in them one too many rejects the claim; the
	// others would only say so again. A claim too many is a fault each.
	over := k.max > 0 && int(f.kids[j]) > k.max && (int(f.kids[j]) == k.max+1 || !strings.HasPrefix(k.id, "24"))
	top := p.push(k)
	top.segs[0] = 1
	p.build.enter(k.id)
	if late {
		p.outOfOrder(s, k.id)
	}
	if over {
		p.fault(Fault{Rule: "x12.loop.repeated", Segment: s.ID, Loop: k.id, SegmentCode: "4", scope: p.scopeOf(k.id),
			Message: fmt.Sprintf("loop %s stands more than %d times", k.id, k.max), Fix: fmt.Sprintf("send it at most %d times", k.max)})
	}
	if s.ID == "HL" {
		p.level(top, s)
	}
	p.check(k.segs[0], s, k.id)
	p.build.take(p, k.id, s)
}

func (p *setParser) outOfOrder(s *Segment, loop string) {
	fix := "send the segments in the order of the implementation guide"
	if l := p.frames[len(p.frames)-1].loop; l.id == loop {
		fix = "send loop " + loop + " in this order: " + l.order()
	}
	if s.ID == p.g.loops[loop].segs[0].id && len(p.frames) > 1 {
		above := p.frames[len(p.frames)-2].loop
		fix = "send loop " + above.id + " in this order: " + above.order()
	}
	p.fault(Fault{Rule: "x12.segment.order", Segment: s.ID, Loop: loop, SegmentCode: "7", scope: p.scopeOf(loop),
		Message: s.ID + " stands after segments that must follow it", Fix: fix})
}

// level checks HL01 to HL04: ids count up by one from 1 in the set, the
// parent is the open level above (guides, section 1.4.3.2.2.2 and HL notes).
func (p *setParser) level(f *frame, s *Segment) {
	depth := map[string]int{"20": 0, "22": 1, "23": 2}[s.El(3)]
	p.lastHL++
	if s.El(1) != fmt.Sprint(p.lastHL) {
		p.fault(Fault{Rule: "x12.hl.sequence", Segment: "HL", Loop: f.loop.id, Element: 1, SegmentCode: "8", ElementCode: "7", scope: inSet,
			Message: "hierarchical level ids must count up by one from 1", Fix: "number the HL segments 1, 2, 3 … in the order of the transaction set"})
	}
	if depth > 0 && s.El(2) != p.hl[depth-1] {
		p.fault(Fault{Rule: "x12.hl.parent", Segment: "HL", Loop: f.loop.id, Element: 2, SegmentCode: "8", ElementCode: "7", scope: inSet,
			Message: "the level's parent is not the level it stands in", Fix: "let HL02 name the billing provider (for a subscriber) or the subscriber (for a patient) just above"})
	}
	p.hl[depth] = s.El(1)
	f.hl04 = s.El(4)
}

// passing looks for what is missing before pos where claims stand below, so
// that they learn of it in time. Other loops are looked at when they close: a
// segment that comes late is then out of order, not missing as well.
func (p *setParser) passing(f *frame, pos int) {
	if strings.HasPrefix(f.loop.id, "2000") {
		p.missing(f, pos)
	}
}

// missing reports the required segments and loops that stand before pos and were not sent.
func (p *setParser) missing(f *frame, pos int) {
	for j, sp := range f.loop.segs {
		if sp.required && sp.pos < pos && f.segs[j] == 0 {
			f.segs[j] = 1
			p.fault(Fault{Rule: "x12.segment.missing", Segment: sp.id, Loop: f.loop.id, SegmentCode: "3", Status: p.status("A6", f.loop.id, sp.id, 0),
				scope: p.scopeOf(f.loop.id), Message: "a required segment is missing: " + describe(sp), Fix: "add " + describe(sp) + " to loop " + f.loop.id})
		}
	}
	for j, k := range f.loop.kids {
		if k.required && k.pos < pos && f.kids[j] == 0 {
			f.kids[j] = 1
			p.fault(Fault{Rule: "x12.loop.missing", Segment: k.segs[0].id, Loop: k.id, SegmentCode: "I7", Status: p.status("A6", k.id, k.segs[0].id, 0),
				scope: p.scopeOf(k.id), Message: "a required loop is missing: " + k.id + ", " + describe(k.segs[0]), Fix: "add loop " + k.id + ", which begins with " + describe(k.segs[0]) + ", to loop " + f.loop.id})
		}
	}
}

// describe names a segment with its telling codes, which are the guide's, not the sender's.
func describe(sp *segmentSpec) string {
	for i, e := range sp.elems {
		if e.tells {
			return fmt.Sprintf("%s with %s%02d %s", sp.id, sp.id, i+1, oneOf(fmt.Sprintf("%s%02d", sp.id, i+1), e.codes))
		}
		if e.kind == '(' && e.comps[0].tells {
			return fmt.Sprintf("%s with %s%02d-1 %s", sp.id, sp.id, i+1, strings.Join(e.comps[0].codes, " or "))
		}
	}
	return sp.id
}

// closeTo closes the loops inside frame i, innermost first.
func (p *setParser) closeTo(i int) {
	for len(p.frames)-1 > i {
		f := &p.frames[len(p.frames)-1]
		p.missing(f, 1<<30)
		if f.loop.segs[0].id == "HL" {
			p.closeLevel(f)
		}
		p.build.leave(p, f.loop.id)
		p.frames = p.frames[:len(p.frames)-1]
	}
}

// closeLevel checks that HL04 told the truth about subordinate levels.
func (p *setParser) closeLevel(f *frame) {
	children := false
	for j, k := range f.loop.kids {
		children = children || k.segs[0].id == "HL" && f.kids[j] > 0
	}
	if f.loop.id != "2000A" && (f.hl04 == "1" && !children || f.hl04 == "0" && children) {
		p.fault(Fault{Rule: "x12.hl.child-code", Segment: "HL", Ordinal: f.ordinal, Loop: f.loop.id, Element: 4, SegmentCode: "8", ElementCode: "7", scope: inSet,
			Message: "HL04 says otherwise than the levels that follow", Fix: "HL04 is 1 where a subordinate HL follows and 0 where none does"})
	}
}

// finish closes everything; the next segment is SE.
func (p *setParser) finish() {
	p.ordinal++
	p.closeTo(0)
	p.missing(&p.frames[0], 1<<30)
}

// unplaced says why a known segment has no place here.
func (p *setParser) unplaced(s *Segment) {
	for i := len(p.frames) - 1; i >= 0; i-- {
		f := &p.frames[i]
		var kin *segmentSpec
		for _, sp := range f.loop.segs[1:] {
			if sp.id == s.ID {
				kin = sp
			}
		}
		for _, k := range f.loop.kids {
			if k.segs[0].id == s.ID {
				kin = k.segs[0]
			}
		}
		if kin == nil {
			continue
		}
		switch s.ID {
		case "REF", "DTP", "AMT", "QTY", "CRC", "PER", "PRV":
			if q := s.El(1); i >= len(p.frames)-2 && q != "" && len(q) <= 3 && shortCode(q) == q {
				return // a further qualifier of an optional segment changes nothing that is read
			}
		}
		sc := p.scopeOf(f.loop.id)
		if s.ID == "HL" {
			sc = inSet
		}
		el := 1
		for n, e := range kin.elems {
			if e.tells {
				el = n + 1
			}
		}
		p.skipping = s.ID == "NM1"
		message, fix := "the code that tells which kind of "+s.ID+" this is fits none that may stand here", "use a qualifier that the implementation guide lists for the loop"
		if name, codes := f.loop.kinds(s.ID); name != "" {
			fix = "send " + name + " as " + oneOf(name, codes)
			if is := p.g.found(s.El(el)); is != "" && !strings.Contains(name, "-") {
				message = name + " is " + is + ", which tells no kind of " + s.ID + " that may stand here"
			}
		}
		p.fault(Fault{Rule: "x12.segment.qualifier", Segment: s.ID, Loop: f.loop.id, Element: el, SegmentCode: "8", ElementCode: "7", scope: sc,
			Message: message, Fix: fix})
		return
	}
	p.fault(Fault{Rule: "x12.segment.unexpected", Segment: s.ID, Loop: p.frames[len(p.frames)-1].loop.id, SegmentCode: "2", scope: p.scope(),
		Message: s.ID + " has no place here, in loop " + p.frames[len(p.frames)-1].loop.id, Fix: "send it in " + p.g.homes(s.ID) + ", or leave it out"})
}

// scope is what a fault where the parser stands rejects.
func (p *setParser) scope() scope { return p.scopeOf(p.frames[len(p.frames)-1].loop.id) }

// scopeOf is what a fault in a loop rejects; the loop's id begins with its level's.
func (p *setParser) scopeOf(loop string) scope {
	if p.g.scope != nil {
		return p.g.scope(loop)
	}
	switch {
	case strings.HasPrefix(loop, "23"), strings.HasPrefix(loop, "24"):
		return inClaim
	case loop == "2000C", loop == "2010CA":
		return inPatient
	case loop == "2000B", loop == "2010BA", loop == "2010BB":
		return inSubscriber
	case strings.HasPrefix(loop, "2010A"), loop == "2000A":
		return inBilling
	}
	return inSet
}

// fault completes and reports a fault.
func (p *setParser) fault(f Fault) {
	if f.Ordinal == 0 {
		f.Ordinal = p.ordinal
	}
	if f.Status == "" && f.scope != inSet {
		f.Status = p.status("A7", f.Loop, f.Segment, f.Element)
	}
	p.build.keep(f)
	p.report(f)
}

func (p *setParser) status(category, loop, segment string, element int) string {
	if p.g.scope != nil || p.scopeOf(loop) == inSet {
		return "" // the 277CA answers claims alone
	}
	return category + ":" + p.g.statusOf(loop, segment, element)
}

func validID(id string) bool {
	if len(id) < 2 || len(id) > 3 {
		return false
	}
	for i := range len(id) {
		if !alphanumeric(id[i]) || id[i] >= 'a' {
			return false
		}
	}
	return id[0] >= 'A'
}

// printableID is the id where it is one, "???" where a sender's data may stand in its place.
func printableID(id string) string {
	if validID(id) {
		return id
	}
	return "???"
}

// endClaim closes the claim that is open, if any: a segment follows that can't belong to it.
func (p *setParser) endClaim() {
	for i := range p.frames {
		if p.frames[i].loop.id == "2300" {
			p.ordinal++ // a missing segment is missed where the next one stands
			p.closeTo(i - 1)
			p.ordinal--
			return
		}
	}
}
