package edits_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/policies/edits"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/sample"
)

const (
	pairs = policiesv1.EditTable_EDIT_TABLE_PTP_PRACTITIONER
	units = policiesv1.EditTable_EDIT_TABLE_MUE_PRACTITIONER
)

func TestCMSLayoutsAreRead(t *testing.T) {
	p, err := edits.Read(bytes.NewReader(sample.PairTable()), pairs)
	require.NoError(t, err)
	require.Len(t, p.Pairs, 13)
	first := p.Pairs[0]
	require.Equal(t, "27447 27370 20100101 0 1 Misuse of Column Two code with Column One code",
		fmt.Sprint(first.One, " ", first.Two, " ", first.Effective, " ", first.Deletion, " ", first.Indicator, " ", p.Rationales[first.Rationale]))
	back := p.Pairs[4]
	require.Equal(t, "29881 29877 20170101", fmt.Sprint(back.One, " ", back.Two, " ", back.Effective), "a pair that was deleted and came back stands twice")

	u, err := edits.Read(iotest.OneByteReader(bytes.NewReader(sample.UnitTable())), units)
	require.NoError(t, err)
	require.Len(t, u.Units, 8)
	last := u.Units[7]
	require.Equal(t, "J1100 120 1 Prescribing Information", fmt.Sprint(last.Procedure, " ", last.Units, " ", last.Indicator, " ", u.Rationales[last.Rationale]))
}

func TestOtherPreamblesAndOrders(t *testing.T) {
	for name, text := range map[string]string{
		"headings first":          "Column 1,Column 2,Effective Date,Deletion Date,Modifier,PTP Edit Rationale\n80053,80048,20000101,*,0,Laboratory panel\n",
		"columns in other order":  "Modifier,Column 2,Column 1,Deletion Date,Effective Date\r\n0,80048,80053,,20000101\r\n",
		"byte order mark":         "\uFEFFColumn 1\tColumn 2\tEffective Date\tDeletion Date\tModifier\n80053\t80048\t20000101\t*\t0\t\t\n",
		"licence lines in quotes": "\"Use is subject to the licence,\nwhich nobody reads\"\n\n\nColumn 1,Column 2,Effective Date,Deletion Date,Modifier\n80053,80048,20000101,*,0\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			p, err := edits.Read(strings.NewReader(text), pairs)
			require.NoError(t, err)
			require.Len(t, p.Pairs, 1)
			require.EqualValues(t, 20000101, p.Pairs[0].Effective)
		})
	}
}

func TestARowThatBreaksTheLayoutRefusesTheFile(t *testing.T) {
	const head = "Column 1,Column 2,*=in existence,Effective Date,Deletion Date,Modifier,PTP Edit Rationale\n80053,80048,,20000101,*,0,x\n"
	const unitHead = "HCPCS/CPT Code,Practitioner Services MUE Values,MUE Adjudication Indicator,MUE Rationale\n"
	for name, c := range map[string]struct {
		text string
		kind policiesv1.EditTable
		rule string
		line int
	}{
		"a lost leading zero":       {head + "101,80048,,20000101,*,0,x\n", pairs, "edits.code", 3},
		"a small letter":            {head + "8005a,80048,,20000101,*,0,x\n", pairs, "edits.code", 3},
		"a day that is none":        {head + "80053,80047,,20000230,*,0,x\n", pairs, "edits.date", 3},
		"a spreadsheet's date":      {head + "80053,80047,,1/1/2000,*,0,x\n", pairs, "edits.date", 3},
		"deleted before effective":  {head + "80053,80047,,20000101,19991231,0,x\n", pairs, "edits.dates", 3},
		"an unknown indicator":      {head + "80053,80047,,20000101,*,2,x\n", pairs, "edits.modifier", 3},
		"no indicator":              {head + "80053,80047,,20000101\n", pairs, "edits.modifier", 3},
		"paired with itself":        {head + "80053,80053,,20000101,*,0,x\n", pairs, "edits.pair", 3},
		"paired twice":              {head + "80053,80048,,20100101,*,1,x\n", pairs, "edits.twice", 0},
		"a mark that is none":       {head + "80053,80047,yes,20000101,*,0,x\n", pairs, "edits.prior", 3},
		"a column too many":         {head + "80053,80047,,20000101,*,0,x,y\n", pairs, "edits.columns", 3},
		"an endless rationale":      {head + "80053,80047,,20000101,*,0," + strings.Repeat("x", 301) + "\n", pairs, "edits.rationale", 3},
		"no headings":               {"80053,80048,,20000101,*,0,x\n", pairs, "edits.headings", 0},
		"headings far below":        {strings.Repeat("x\n", 80) + head, pairs, "edits.headings", 61},
		"nothing":                   {"", pairs, "edits.headings", 0},
		"headings alone":            {head[:strings.Index(head, "\n")+1], pairs, "edits.empty", 0},
		"an archive":                {"PK\x03\x04rest", pairs, "edits.format", 0},
		"pairs for units":           {head, units, "edits.headings", 0},
		"another setting's table":   {unitHead + "99213,1,2 Date of Service Edit: Policy,x\n", policiesv1.EditTable_EDIT_TABLE_MUE_HOSPITAL, "edits.table", 1},
		"negative units":            {unitHead + "99213,-1,2 Date,x\n", units, "edits.units", 2},
		"overflowing units":         {unitHead + "99213,99999999999999999999,2 Date,x\n", units, "edits.units", 2},
		"more units than there are": {unitHead + "99213,100001,2 Date,x\n", units, "edits.units", 2},
		"an indicator in words":     {unitHead + "99213,1,Policy,x\n", units, "edits.indicator", 2},
		"limited twice":             {unitHead + "99213,1,2 Date,x\n99213,2,3 Date,x\n", units, "edits.twice", 0},
	} {
		t.Run(name, func(t *testing.T) {
			table, err := edits.Read(strings.NewReader(c.text), c.kind)
			require.Nil(t, table)
			require.True(t, problem.Is(err, problem.Invalid), "%v", err)
			p := problem.As(err).Problems[0]
			require.Equal(t, c.rule, p.RuleID, p.Message)
			require.Equal(t, c.line, p.Line)
			require.NotEmpty(t, p.Fix)
		})
	}
	t.Run("every fault, up to a bound", func(t *testing.T) {
		_, err := edits.Read(strings.NewReader(head+strings.Repeat("bad,row\n", 5000)), pairs)
		require.Len(t, problem.As(err).Problems, 100)
	})
	t.Run("a source that fails", func(t *testing.T) {
		_, err := edits.Read(iotest.ErrReader(io.ErrClosedPipe), pairs)
		require.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

// large is a table of n pairs over codes that look alike.
func large(n int) *edits.Table {
	t := &edits.Table{Kind: pairs, Rationales: []string{"More extensive procedure", "Mutually exclusive procedures"}}
	for i := range n {
		var p edits.Pair
		copy(p.One[:], fmt.Sprintf("%05d", i/20))
		copy(p.Two[:], fmt.Sprintf("A%04d", i%20))
		p.Effective, p.Indicator, p.Rationale = 20000101, uint8(i%2), uint16(i%2)
		t.Pairs = append(t.Pairs, p)
	}
	return t
}

func TestChunksHoldEveryRowOnceAndQuartersShareThem(t *testing.T) {
	table := large(200_000)
	before, err := table.Chunks()
	require.NoError(t, err)
	b := adjudication.NewEdits("ptp-practitioner@1", adjudication.Period{Start: adjudication.DateOf(2026, 1, 1)})
	rows := 0
	for _, c := range before {
		require.Less(t, len(c.Content), 600_000)
		rows += c.Rows
		m, err := edits.Open(c.Content, c.SHA256[:])
		require.NoError(t, err)
		require.NoError(t, edits.Fill(b, pairs, m))
	}
	require.Equal(t, 200_000, rows)
	made, err := b.Compile()
	require.NoError(t, err)
	n, _ := made.Size()
	require.Equal(t, 200_000, n)

	table.Pairs = append(table.Pairs[:77_777], table.Pairs[77_778:]...) // next quarter drops one row
	after, err := table.Chunks()
	require.NoError(t, err)
	known := map[[32]byte]bool{}
	for _, c := range before {
		known[c.SHA256] = true
	}
	fresh := 0
	for _, c := range after {
		if !known[c.SHA256] {
			fresh++
		}
	}
	require.LessOrEqual(t, fresh, 2, "of %d chunks", len(after))

	_, err = edits.Open(before[0].Content, before[1].SHA256[:])
	require.Error(t, err, "a chunk answers to its own hash only")
	_, err = edits.Open([]byte("no zstd"), before[0].SHA256[:])
	require.Error(t, err)
}

// What is written in the layout is read back as it was, whatever the order of rows.
func TestTablesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "rows")
		lines := make([]string, n)
		for i := range lines {
			deletion := rapid.SampledFrom([]string{"*", "", "20301231"}).Draw(t, "deletion")
			lines[i] = fmt.Sprintf("%05d\tG%04d\t\t20200101\t%s\t%d\tLaboratory panel", 10000+i, i, deletion, rapid.SampledFrom([]int{0, 1, 9}).Draw(t, "indicator"))
		}
		shuffled := rapid.Permutation(lines).Draw(t, "order")
		table, err := edits.Read(strings.NewReader("Column 1\tColumn 2\t*=in existence\tEffective Date\tDeletion Date\tModifier\tRationale\n"+strings.Join(shuffled, "\n")), pairs)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range table.Pairs {
			deletion := "*"
			if p.Deletion != 0 {
				deletion = fmt.Sprint(p.Deletion)
			}
			got := fmt.Sprintf("%s\t%s\t\t%d\t%s\t%d\t%s", p.One, p.Two, p.Effective, deletion, p.Indicator, table.Rationales[p.Rationale])
			if got != strings.Replace(lines[i], "\t\t0", "\t*\t0", 1) && got != strings.Replace(lines[i], "20200101\t\t", "20200101\t*\t", 1) {
				t.Fatalf("row %d: %q, sent %q", i, got, lines[i])
			}
		}
	})
}

// Whatever the bytes: no panic, and what is accepted the engine takes.
func FuzzRead(f *testing.F) {
	f.Add(sample.PairTable(), true)
	f.Add(sample.UnitTable(), false)
	f.Add([]byte("Column 1,Column 2,Effective Date,Deletion Date,Modifier\n\"80053,80048"), true)
	f.Fuzz(func(t *testing.T, b []byte, ofPairs bool) {
		kind := units
		if ofPairs {
			kind = pairs
		}
		table, err := edits.Read(bytes.NewReader(b), kind)
		if err != nil {
			var p *problem.Error
			if !errors.As(err, &p) || len(p.Problems) == 0 {
				t.Fatalf("refused without a problem: %v", err)
			}
			return
		}
		chunks, err := table.Chunks()
		if err != nil {
			t.Fatal(err)
		}
		builder := adjudication.NewEdits("x@1", adjudication.Period{Start: 1})
		for _, c := range chunks {
			m, err := edits.Open(c.Content, c.SHA256[:])
			if err != nil {
				t.Fatal(err)
			}
			if err := edits.Fill(builder, kind, m); err != nil {
				t.Fatalf("accepted and not taken: %v", err)
			}
		}
		if _, err := builder.Compile(); err != nil {
			t.Fatalf("accepted and not compiled: %v", err)
		}
	})
}
