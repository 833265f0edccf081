package edits

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/problem"
)

// column is one heading of a layout: how it begins, letters and digits only.
type column struct {
	begins   []string
	required bool
}

var pairColumns = []column{
	{[]string{"column1", "columnone"}, true},
	{[]string{"column2", "columntwo"}, true},
	{[]string{"effectivedate", "effectivedt"}, true},
	{[]string{"deletiondate", "deletiondt"}, true},
	{[]string{"modifier"}, true},
	{[]string{"ptpeditrationale", "rationale"}, false},
	{[]string{"inexistence"}, false},
}

var unitColumns = []column{
	{[]string{"hcpcscptcode", "hcpcscode", "cptcode"}, true},
	{[]string{"practitionerservicesmuevalue", "outpatienthospitalservicesmuevalue", "facilityoutpatientservicesmuevalue", "dmesupplierservicesmuevalue", "muevalue"}, true},
	{[]string{"mueadjudicationindicator"}, true},
	{[]string{"muerationale", "rationale"}, false},
}

// valueHeading begins the heading of the units in each table of unlikely
// units: it says which table a file is.
var valueHeading = map[policiesv1.EditTable][]string{
	policiesv1.EditTable_EDIT_TABLE_MUE_PRACTITIONER: {"practitioner", "muevalue"},
	policiesv1.EditTable_EDIT_TABLE_MUE_HOSPITAL:     {"outpatient", "facility", "muevalue"},
	policiesv1.EditTable_EDIT_TABLE_MUE_SUPPLIER:     {"dme", "muevalue"},
}

// Read reads one table. The error is r's own, or a *problem.Error of kind
// Invalid with every fault found, each with its line.
func Read(r io.Reader, kind policiesv1.EditTable) (*Table, error) {
	src := &bounded{r: r, left: MaxBytes}
	buffered := bufio.NewReaderSize(src, 64<<10)
	head, err := buffered.Peek(64 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("\xD0\xCF\x11\xE0")) {
		return nil, refuse("edits.format", 0, "the file is a zip archive or a spreadsheet", "unpack it and import the .txt or .csv file in it")
	}
	if bytes.HasPrefix(head, []byte("\xEF\xBB\xBF")) {
		if _, err := buffered.Discard(3); err != nil {
			return nil, err
		}
	}
	in := csv.NewReader(buffered)
	in.FieldsPerRecord, in.LazyQuotes, in.ReuseRecord = -1, true, true
	if bytes.IndexByte(head, '\t') >= 0 {
		in.Comma = '\t'
	}
	t := &reading{Table: Table{Kind: kind}, texts: map[string]uint16{}}
	if err := t.run(in); err != nil {
		return nil, err
	}
	if src.left < 0 {
		return nil, refuse("edits.size", 0, fmt.Sprintf("the file has more than %d MiB", MaxBytes>>20), "import the tables CMS publishes, one file at a time")
	}
	t.settle()
	if len(t.faults) > 0 {
		return nil, &problem.Error{Kind: problem.Invalid, Problems: t.faults}
	}
	return &t.Table, nil
}

// bounded ends a source that is too large; left is then negative.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, io.EOF
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	return n, err
}

func refuse(rule string, line int, message, fix string) *problem.Error {
	return problem.New(problem.Invalid, problem.Problem{RuleID: rule, Line: line, Message: message, Fix: fix})
}

// reading is a table on its way in.
type reading struct {
	Table
	at     []int // index of each column of the layout; -1 where there is none
	width  int   // columns the headings have
	texts  map[string]uint16
	faults []problem.Problem
}

func (t *reading) fault(rule string, line int, message, fix string) {
	if len(t.faults) < maxFaults {
		t.faults = append(t.faults, problem.Problem{RuleID: rule, Line: line, Message: message, Fix: fix})
	}
}

func (t *reading) run(in *csv.Reader) error {
	for lines := 0; ; lines++ {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			if t.at == nil {
				return refuse("edits.headings", 0, "the table's headings were not found", t.layout())
			}
			return nil
		}
		if err != nil {
			var bad *csv.ParseError
			if errors.As(err, &bad) {
				return refuse("edits.syntax", bad.Line, "the line can't be cut into columns", "send the file as CMS publishes it")
			}
			return err
		}
		line, _ := in.FieldPos(0)
		switch {
		case blank(record):
		case t.at == nil:
			if t.headings(record, line); t.at == nil && lines >= maxPreamble {
				return refuse("edits.headings", line, fmt.Sprintf("the table's headings were not found in the first %d lines", maxPreamble), t.layout())
			}
			if len(t.faults) > 0 {
				return &problem.Error{Kind: problem.Invalid, Problems: t.faults}
			}
		case t.Rows() >= MaxRows:
			return refuse("edits.rows", line, fmt.Sprintf("the table has more than %d rows", MaxRows), "import the tables CMS publishes, one file at a time")
		default:
			t.row(record, line)
			if len(t.faults) >= maxFaults {
				return nil
			}
		}
	}
}

func (t *reading) layout() string {
	if HoldsPairs(t.Kind) {
		return "the headings are Column 1, Column 2, Effective Date, Deletion Date, Modifier and PTP Edit Rationale"
	}
	return "the headings are HCPCS/CPT Code, … MUE Values, MUE Adjudication Indicator and MUE Rationale"
}

func (t *reading) columns() []column {
	if HoldsPairs(t.Kind) {
		return pairColumns
	}
	return unitColumns
}

// headings takes a record for the headings where every required one is in it.
func (t *reading) headings(record []string, line int) {
	at := make([]int, len(t.columns()))
	for i, c := range t.columns() {
		at[i] = slices.IndexFunc(record, func(cell string) bool {
			name := plain(cell)
			return slices.ContainsFunc(c.begins, func(b string) bool { return strings.HasPrefix(name, b) })
		})
		if at[i] < 0 && c.required {
			return
		}
	}
	t.at, t.width = at, len(record)
	if !HoldsPairs(t.Kind) {
		heading := plain(record[at[1]])
		if !slices.ContainsFunc(valueHeading[t.Kind], func(b string) bool { return strings.HasPrefix(heading, b) }) {
			t.fault("edits.table", line, "the headings are another table's than "+Name(t.Kind), "name the table the file holds: "+strings.Join(Names(), ", "))
		}
	}
}

// plain keeps a heading's letters and digits, small.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return -1
	}, s)
}

func blank(record []string) bool {
	return !slices.ContainsFunc(record, func(s string) bool { return strings.TrimSpace(s) != "" })
}

// cell is a column's value in a record; "" where the record ends before it.
func (t *reading) cell(record []string, i int) string {
	if t.at[i] < 0 || t.at[i] >= len(record) {
		return ""
	}
	return strings.TrimSpace(record[t.at[i]])
}

func (t *reading) row(record []string, line int) {
	if len(record) > t.width && !blank(record[t.width:]) {
		t.fault("edits.columns", line, "the row has more columns than the headings", "send the file as CMS publishes it")
		return
	}
	before := len(t.faults)
	if HoldsPairs(t.Kind) {
		p := Pair{
			One: t.code(t.cell(record, 0), line, "column 1"), Two: t.code(t.cell(record, 1), line, "column 2"),
			Effective: t.day(t.cell(record, 2), line, "the effective date"), Rationale: t.text(t.cell(record, 5), line),
		}
		if deletion := t.cell(record, 3); deletion != "*" && deletion != "" {
			p.Deletion = t.day(deletion, line, "the deletion date")
		}
		if mark := t.cell(record, 6); mark != "" && mark != "*" {
			t.fault("edits.prior", line, "the mark of edits from before 1996 is neither * nor empty", "send the file as CMS publishes it")
		}
		switch m := t.cell(record, 4); m {
		case "0", "1", "9":
			p.Indicator = m[0] - '0'
		default:
			t.fault("edits.modifier", line, "the modifier indicator is none of 0, 1, 9", "send the file as CMS publishes it")
		}
		if len(t.faults) > before {
			return
		}
		if p.One == p.Two {
			t.fault("edits.pair", line, "the code is paired with itself", "send the file as CMS publishes it")
			return
		}
		if p.Deletion != 0 && p.Deletion < p.Effective {
			t.fault("edits.dates", line, "the edit is deleted before it is effective", "send the file as CMS publishes it")
			return
		}
		t.Pairs = append(t.Pairs, p)
		return
	}
	u := Unit{Procedure: t.code(t.cell(record, 0), line, "the code"), Rationale: t.text(t.cell(record, 3), line)}
	units := t.cell(record, 1)
	if len(units) == 0 || len(units) > 6 || strings.Trim(units, "0123456789") != "" {
		t.fault("edits.units", line, "the units are not a whole number", "send the file as CMS publishes it")
	} else {
		for i := range len(units) {
			u.Units = u.Units*10 + uint32(units[i]-'0')
		}
		if u.Units > adjudication.MaxEditUnits {
			t.fault("edits.units", line, fmt.Sprintf("the units are more than %d", adjudication.MaxEditUnits), "send the file as CMS publishes it")
		}
	}
	// CMS writes the indicator with its meaning: "3 Date of Service Edit: Clinical".
	indicator, _, _ := strings.Cut(t.cell(record, 2), " ")
	switch indicator {
	case "1", "2", "3":
		u.Indicator = indicator[0] - '0'
	default:
		t.fault("edits.indicator", line, "the adjudication indicator is none of 1, 2, 3", "send the file as CMS publishes it")
	}
	if len(t.faults) == before {
		t.Units = append(t.Units, u)
	}
}

func (t *reading) code(s string, line int, what string) (c Code) {
	if len(s) != len(c) {
		t.fault("edits.code", line, what+" is not a procedure code of five letters and digits", "send the file as CMS publishes it; spreadsheets drop leading zeros")
		return c
	}
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'A' || s[i] > 'Z') {
			t.fault("edits.code", line, what+" is not a procedure code of five letters and digits", "send the file as CMS publishes it")
			return c
		}
		c[i] = s[i]
	}
	return c
}

func (t *reading) day(s string, line int, what string) uint32 {
	at, err := time.Parse("20060102", s)
	if err != nil || at.Year() < 1900 || at.Year() > 2199 {
		t.fault("edits.date", line, what+" is not a day written CCYYMMDD", "send the file as CMS publishes it; spreadsheets rewrite dates")
		return 0
	}
	return uint32(at.Year()*10000 + int(at.Month())*100 + at.Day())
}

func (t *reading) text(s string, line int) uint16 {
	if i, known := t.texts[s]; known {
		return i
	}
	if len(s) > maxRationale || len(t.texts) >= maxRationales || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == '\uFFFD' }) {
		t.fault("edits.rationale", line, "the rationale is no short line of text, or there are too many different ones", "send the file as CMS publishes it")
		return 0
	}
	s = strings.Clone(s) // the record's memory is reused
	i := uint16(len(t.Rationales))
	t.texts[s], t.Rationales = i, append(t.Rationales, s)
	return i
}

// settle sorts the rows and finds those that contradict each other. The
// line of a contradiction is lost with the order of the file; codes name it.
func (t *reading) settle() {
	if len(t.faults) == 0 && t.Rows() == 0 {
		t.fault("edits.empty", 0, "the table has no rows", "send the file as CMS publishes it")
	}
	slices.SortFunc(t.Pairs, func(a, b Pair) int {
		return cmp.Or(bytes.Compare(a.One[:], b.One[:]), bytes.Compare(a.Two[:], b.Two[:]), cmp.Compare(a.Effective, b.Effective), cmp.Compare(a.Deletion, b.Deletion))
	})
	for i := 1; i < len(t.Pairs); i++ {
		a, b := t.Pairs[i-1], t.Pairs[i]
		// A pair with indicator 9 never counted, so it contradicts none.
		if a.One == b.One && a.Two == b.Two && a.Indicator != 9 && b.Indicator != 9 && (a.Deletion == 0 || b.Effective <= a.Deletion) {
			t.fault("edits.twice", 0, fmt.Sprintf("%s and %s are paired twice on the same days", a.One, a.Two), "send the file as CMS publishes it")
		}
	}
	slices.SortFunc(t.Units, func(a, b Unit) int { return bytes.Compare(a.Procedure[:], b.Procedure[:]) })
	for i := 1; i < len(t.Units); i++ {
		if t.Units[i-1].Procedure == t.Units[i].Procedure {
			t.fault("edits.twice", 0, fmt.Sprintf("%s is limited twice", t.Units[i].Procedure), "send the file as CMS publishes it")
		}
	}
}
