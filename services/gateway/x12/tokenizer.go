package x12

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits bound what a file may make the parser hold. Zero fields take the defaults.
type Limits struct {
	// SegmentBytes is the longest segment. Default 64 KiB.
	SegmentBytes int
	// Elements is the most elements of a segment. Default 128.
	Elements int
	// Problems is how many problems are kept a file; later ones still reject
	// what they stand in. Default 1000.
	Problems int
}

func (l Limits) withDefaults() Limits {
	if l.SegmentBytes <= 0 {
		l.SegmentBytes = 64 << 10
	}
	if l.Elements <= 0 {
		l.Elements = 128
	}
	if l.Problems <= 0 {
		l.Problems = 1000
	}
	return l
}

// delimiters as an ISA segment declares them; repetition 0 is none.
type delimiters struct {
	element, component, repetition, segment byte
}

// Segment is one segment; its strings share one allocation and stay valid.
type Segment struct {
	ID  string
	tag uint32 // of ID
	// elems are the data elements after the id, raw.
	elems []string
	// offset is the byte offset of the segment's id in the file.
	offset int64
	d      delimiters
	// fault names a rule that the characters of the segment break; such
	// characters have been taken out of the elements.
	fault string
}

// El returns element n (from 1), "" when absent.
func (s *Segment) El(n int) string {
	if n < 1 || n > len(s.elems) {
		return ""
	}
	return s.elems[n-1]
}

// Comp returns component c (from 1) of element n, "" when absent.
func (s *Segment) Comp(n, c int) string {
	e := s.El(n)
	for ; c > 1; c-- {
		i := strings.IndexByte(e, s.d.component)
		if i < 0 {
			return ""
		}
		e = e[i+1:]
	}
	if i := strings.IndexByte(e, s.d.component); i >= 0 {
		e = e[:i]
	}
	return e
}

// tokenError is a fault of the byte stream that ends reading: nothing after it can be trusted.
type tokenError struct {
	rule, msg, fix string
	element        string // "ISA06", where one can be named
}

func (e *tokenError) Error() string { return e.msg }

// tokenizer cuts a stream into segments.
type tokenizer struct {
	r      *bufio.Reader
	lim    Limits
	d      delimiters
	offset int64 // of the next unread byte
	elems  []string
	seg    Segment
}

// isaWidths are the fixed widths of ISA01 to ISA16 (X12.5).
var isaWidths = [16]int{2, 10, 2, 10, 2, 15, 2, 15, 6, 4, 1, 5, 9, 1, 1, 1}

const isaLength = 106 // "ISA", 16 separators, 86 bytes of data, the terminator

func newTokenizer(r io.Reader, offset int64, d delimiters, lim Limits) *tokenizer {
	lim = lim.withDefaults()
	return &tokenizer{r: bufio.NewReaderSize(r, max(lim.SegmentBytes+1, 64<<10)), lim: lim, d: d, offset: offset}
}

// skipBlank passes over the line breaks (and, between interchanges, blanks)
// that may follow a terminator.
func (t *tokenizer) skipBlank(alsoSpaces bool) error {
	for {
		b, err := t.r.ReadByte()
		if err != nil {
			return err
		}
		if b == '\r' || b == '\n' || alsoSpaces && (b == ' ' || b == '\t' || b == 0x1a) {
			t.offset++
			continue
		}
		return t.r.UnreadByte()
	}
}

// noInterchange says what stands where an interchange must start. People send
// X12 packed, printed, and saved by programs that write UTF-16; told only that
// ISA is missing they look for it in a file that has it.
func noInterchange(head []byte) error {
	starts := func(with ...string) bool {
		return slices.ContainsFunc(with, func(w string) bool { return strings.HasPrefix(string(head), w) })
	}
	e := &tokenError{rule: "x12.interchange.no-isa", msg: "the file does not start with an ISA segment where an interchange must start",
		fix: "send a complete X12 interchange, from ISA to IEA"}
	switch {
	case starts("\xFF\xFE", "\xFE\xFF", "I\x00S\x00A\x00", "\x00I\x00S\x00A"):
		e.rule, e.msg, e.fix = "x12.interchange.utf-16", "the file is text in UTF-16, of which X12 can't be read", "save it as plain text, ASCII or UTF-8, and send that"
	case starts("\x1F\x8B", "PK\x03\x04", "\x28\xB5\x2F\xFD", "BZh", "\xFD7zXZ"):
		e.rule, e.msg, e.fix = "x12.interchange.packed", "the file is compressed", "unpack it and send the X12 file that is in it"
	case starts("%PDF", "<?xml", "<", "{", "["):
		e.rule, e.msg, e.fix = "x12.interchange.other-format", "the file is of another format than X12", "send the X12 file (837), not a print or an export of it"
	case starts("GS", "ST"):
		e.fix = "the ISA segment before GS and the IEA at the end are missing: send the whole interchange"
	}
	return e
}

// interchange reads the next ISA segment and takes its delimiters.
// io.EOF: nothing but blanks was left.
func (t *tokenizer) interchange() (*Segment, error) {
	if t.offset == 0 {
		if b, _ := t.r.Peek(3); string(b) == "\xEF\xBB\xBF" {
			_, _ = t.r.Discard(3)
			t.offset = 3
		}
	}
	if err := t.skipBlank(true); err != nil {
		return nil, err
	}
	head, err := t.r.Peek(isaLength)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(head) < 4 || string(head[:3]) != "ISA" {
		return nil, noInterchange(head)
	}
	sep := head[3]
	if !delimiter(sep) {
		return nil, &tokenError{rule: "x12.interchange.separator", msg: "the element separator declared by the ISA segment is not a separator", element: "ISA",
			fix: "use a punctuation character such as * as element separator"}
	}
	at := 3
	for i, w := range isaWidths {
		if at >= len(head) || head[at] != sep {
			return nil, widthError(i)
		}
		end := at + 1 + w
		if i == 15 {
			at = end
			break
		}
		if end >= len(head) || head[end] != sep || strings.IndexByte(string(head[at+1:end]), sep) >= 0 {
			return nil, widthError(i + 1)
		}
		at = end
	}
	if at >= len(head) {
		return nil, widthError(16)
	}
	d := delimiters{element: sep, component: head[at-1], segment: head[at]}
	// Before 00402 ISA11 was a letter; senders still write it. Then nothing repeats.
	if rep := head[82]; !alphanumeric(rep) {
		d.repetition = rep
	}
	if !delimiter(d.component) || !delimiter(d.segment) || d.repetition != 0 && !delimiter(d.repetition) ||
		d.component == sep || d.segment == sep || d.component == d.segment ||
		d.repetition == sep || d.repetition == d.component || d.repetition == d.segment {
		return nil, &tokenError{rule: "x12.interchange.separator", element: "ISA16", msg: "the delimiters declared by the ISA segment are not four distinct punctuation characters",
			fix: "use distinct characters, e.g. * element, ^ repetition, : component, ~ terminator"}
	}
	t.d = d
	return t.next()
}

func widthError(i int) error {
	el := "ISA"
	if i > 0 {
		el = fmt.Sprintf("ISA%02d", i)
	}
	return &tokenError{rule: "x12.interchange.isa-width", element: el, msg: "the ISA segment is not in its fixed layout: " + el + " has another width than the standard's",
		fix: "pad every ISA element with blanks to its fixed width; the whole segment is 106 characters"}
}

// clean takes out what may not stand in a segment and names the rule broken.
func (t *tokenizer) clean(text string) (string, string) {
	if printable(text) {
		return text, ""
	}
	fault := ""
	if !utf8.ValidString(text) {
		text, fault = strings.ToValidUTF8(text, "?"), "x12.segment.encoding"
	}
	bad := func(r rune) bool {
		return (r < 0x20 || r >= 0x7f && r < 0xa0) && r != rune(t.d.element) && r != rune(t.d.component) && r != rune(t.d.repetition)
	}
	if strings.ContainsFunc(text, bad) {
		fault = "x12.segment.control-character"
		text = strings.Map(func(r rune) rune {
			if bad(r) {
				return -1
			}
			return r
		}, text)
	}
	return text, fault
}

// printable tells whether all of s is printing ASCII, as almost all of X12 is.
func printable(s string) bool {
	for i := range len(s) {
		if s[i]-0x20 > 0x7e-0x20 {
			return false
		}
	}
	return true
}

// delimiter tells whether b may delimit: a printing character or one of the
// separators of ASCII, not a letter, digit or blank.
func delimiter(b byte) bool {
	return !alphanumeric(b) && b != ' ' && (b > ' ' && b < 0x7f || b == '\r' || b == '\n' || b >= 0x1c && b <= 0x1f)
}

func alphanumeric(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z'
}

// next returns the next segment; it is valid until the call after. At the end
// of the stream it is io.EOF, or a *tokenError when bytes are left over.
func (t *tokenizer) next() (*Segment, error) {
	if err := t.skipBlank(false); err != nil {
		return nil, err
	}
	start := t.offset
	raw, err := t.r.ReadSlice(t.d.segment)
	switch {
	case errors.Is(err, bufio.ErrBufferFull), err == nil && len(raw) > t.lim.SegmentBytes:
		return nil, &tokenError{rule: "x12.segment.too-long", msg: fmt.Sprintf("a segment is longer than %d bytes", t.lim.SegmentBytes),
			fix: "check that the segment terminator is the one the ISA segment declares"}
	case errors.Is(err, io.EOF):
		if len(strings.TrimSpace(string(raw))) == 0 {
			return nil, io.EOF
		}
		return nil, &tokenError{rule: "x12.segment.unterminated", msg: "the file ends inside a segment", fix: "send the whole file; it looks cut off"}
	case err != nil:
		return nil, err
	}
	t.offset += int64(len(raw))
	text, fault := t.clean(string(raw[:len(raw)-1]))
	t.elems = t.elems[:0]
	end := strings.IndexByte(text, t.d.element)
	if end < 0 {
		end = len(text)
	}
	id := text[:end]
	for end < len(text) {
		if len(t.elems) == t.lim.Elements {
			return nil, &tokenError{rule: "x12.segment.too-many-elements", msg: fmt.Sprintf("a segment has more than %d elements", t.lim.Elements),
				fix: "check that the segment terminator is the one the ISA segment declares"}
		}
		from := end + 1
		if end = strings.IndexByte(text[from:], t.d.element); end < 0 {
			end = len(text)
		} else {
			end += from
		}
		t.elems = append(t.elems, text[from:end])
	}
	t.seg = Segment{ID: id, tag: tagOf(id), elems: t.elems, offset: start, d: t.d, fault: fault}
	return &t.seg, nil
}
