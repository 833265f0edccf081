package generate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/services/policies/edits"
)

// EditTable is a quarter's table of claim edits in CMS's layout, tab
// separated. Its rows are invented.
type EditTable struct {
	Table   policiesv1.EditTable
	Quarter string // "2026Q1"
	Text    []byte
}

// Name is the table's short name, "ptp-practitioner".
func (t *EditTable) Name() string { return edits.Name(t.Table) }

// From is the first day that the table governs.
func (t *EditTable) From() string {
	from, _ := edits.FirstDay(t.Quarter)
	return from
}

// pairRow is two procedures that aren't paid together.
type pairRow struct {
	one, two  string
	modifier  int // 0 never, 1 with a modifier, 9 withdrawn
	rationale string
	later     bool // only in the later quarter's table
}

// What CMS's tables call their reasons.
const (
	component = "Standards of medical / surgical practice"
	exclusive = "Mutually exclusive procedures"
	misuse    = "Misuse of column two code with column one code"
)

// Rows of the invented tables, among what the specialties do.
var (
	practitionerPairs = []pairRow{
		{"29881", "29876", 1, component, false},
		{"29876", "20610", 1, component, false}, // with the pair above a chain
		{"20610", "99203", 1, component, false}, // a visit's modifier 25 opens it
		{"93306", "93000", 1, component, false},
		{"93015", "93000", 0, misuse, false},
		{"11102", "17000", 1, exclusive, false},
		{"97530", "97140", 1, misuse, true},
		{"97110", "97112", 9, component, false},
		{"80053", "84443", 1, component, true},
		{"12001", "99283", 1, component, false},
	}
	hospitalPairs = []pairRow{
		{"47562", "96374", 1, component, false},
		{"45378", "96374", 0, misuse, false},
		{"99284", "71046", 1, exclusive, true},
	}
)

type unitRow struct {
	code      string
	units     int
	indicator int // 1 a line, 2 and 3 a day
}

var (
	practitionerUnits = []unitRow{
		{"97140", 3, 3}, {"97530", 3, 1}, {"97112", 2, 2}, {"36415", 1, 3}, {"85025", 1, 2}, {"80053", 1, 3}, {"20610", 2, 1},
		{"71046", 1, 3}, {"99213", 1, 2}, {"00840", 1, 3}, // minutes are no units
	}
	hospitalUnits = []unitRow{{"80053", 1, 3}, {"85025", 1, 2}, {"96374", 1, 1}, {"99284", 1, 2}}
	supplierUnits = []unitRow{{"E0601", 1, 2}, {"A7030", 1, 3}, {"L1833", 1, 1}}
)

// editTables are two quarters of each table: that of the year's first day, and
// that of a day in the midst of the services, from which some rows are new and
// one limit is higher.
func (w *World) editTables() []EditTable {
	first, later := fmt.Sprintf("%dQ1", w.year-2), quarterOf(w.day((oldest+youngest)/2))
	var out []EditTable
	for _, q := range []string{first, later} {
		for kind, rows := range map[policiesv1.EditTable][]pairRow{
			policiesv1.EditTable_EDIT_TABLE_PTP_PRACTITIONER: practitionerPairs, policiesv1.EditTable_EDIT_TABLE_PTP_HOSPITAL: hospitalPairs,
		} {
			out = append(out, EditTable{Table: kind, Quarter: q, Text: pairText(rows, q == later)})
		}
		for kind, t := range map[policiesv1.EditTable]struct {
			heading string
			rows    []unitRow
		}{
			policiesv1.EditTable_EDIT_TABLE_MUE_PRACTITIONER: {"Practitioner Services MUE Values", practitionerUnits},
			policiesv1.EditTable_EDIT_TABLE_MUE_HOSPITAL:     {"Outpatient Hospital Services MUE Values", hospitalUnits},
			policiesv1.EditTable_EDIT_TABLE_MUE_SUPPLIER:     {"DME Supplier Services MUE Values", supplierUnits},
		} {
			out = append(out, EditTable{Table: kind, Quarter: q, Text: unitText(t.heading, t.rows, q == later)})
		}
	}
	slices.SortStableFunc(out, func(a, b EditTable) int {
		return strings.Compare(a.Quarter+a.Name(), b.Quarter+b.Name())
	})
	return out
}

func quarterOf(day string) string {
	return day[:4] + "Q" + string('1'+((day[5]-'0')*10+day[6]-'0'-1)/3)
}

const notice = "Invented rows in the layout that CMS publishes; not for use on real claims."

func pairText(rows []pairRow, later bool) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nColumn 1\tColumn 2\t*=in existence prior to 1996\tEffective Date\tDeletion Date\tModifier\tPTP Edit Rationale\n", notice)
	for _, r := range rows {
		if !r.later || later {
			deleted := "*"
			if r.modifier == 9 {
				deleted = "20160101"
			}
			fmt.Fprintf(&b, "%s\t%s\t\t20160101\t%s\t%d\t%s\n", r.one, r.two, deleted, r.modifier, r.rationale)
		}
	}
	return []byte(b.String())
}

func unitText(heading string, rows []unitRow, later bool) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nHCPCS/CPT Code\t%s\tMUE Adjudication Indicator\tMUE Rationale\n", notice, heading)
	means := []string{"", "1 Line Edit", "2 Date of Service Edit: Policy", "3 Date of Service Edit: Clinical"}
	for _, r := range rows {
		if r.code == "97140" && later {
			r.units++
		}
		fmt.Fprintf(&b, "%s\t%d\t%s\tNature of Service/Procedure\n", r.code, r.units, means[r.indicator])
	}
	return []byte(b.String())
}

func (t *EditTable) publish(ctx context.Context, client policiesv1connect.EditsServiceClient) error {
	up, err := client.ImportEdits(ctx)
	if err != nil {
		return err
	}
	err = up.Send(&policiesv1.ImportEditsRequest{Part: &policiesv1.ImportEditsRequest_Header{Header: &policiesv1.EditsHeader{PayerId: PayerID, Table: t.Table, Quarter: t.Quarter}}})
	if err == nil {
		err = up.Send(&policiesv1.ImportEditsRequest{Part: &policiesv1.ImportEditsRequest_Data{Data: t.Text}})
	}
	if err != nil && !errors.Is(err, io.EOF) { // the answer says why it wants no more
		return err
	}
	_, err = up.CloseAndReceive()
	return err
}

// partners are the procedures that stand in a pair with one, and whether they
// are the second of it, in the tables of a setting.
func partners(rows []pairRow, code string) (out []partner) {
	for _, r := range rows {
		switch {
		case r.modifier == 9:
		case r.one == code:
			out = append(out, partner{r.two, true})
		case r.two == code:
			out = append(out, partner{r.one, false})
		}
	}
	return out
}

type partner struct {
	code   string
	second bool
}
