package policies_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/sample"
)

const pairTable = policiesv1.EditTable_EDIT_TABLE_PTP_PRACTITIONER

// editsClient speaks to the house over HTTP, as an administrator of P1.
func (h *house) editsClient(t *testing.T) policiesv1connect.EditsServiceClient {
	t.Helper()
	who, _ := identity.FromContext(h.ctx)
	_, handler := policiesv1connect.NewEditsServiceHandler(h.Handler)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(identity.WithPrincipal(r.Context(), who)))
	}))
	t.Cleanup(s.Close)
	return policiesv1connect.NewEditsServiceClient(s.Client(), s.URL)
}

func send(t *testing.T, c policiesv1connect.EditsServiceClient, header *policiesv1.EditsHeader, content []byte) (*policiesv1.ImportEditsResponse, error) {
	t.Helper()
	stream, err := c.ImportEdits(context.Background())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&policiesv1.ImportEditsRequest{Part: &policiesv1.ImportEditsRequest_Header{Header: header}}))
	for part := range bytes.SplitSeq(content, []byte("\n")) {
		if stream.Send(&policiesv1.ImportEditsRequest{Part: &policiesv1.ImportEditsRequest_Data{Data: append(part, '\n')}}) != nil {
			break // the other side has answered
		}
	}
	return stream.CloseAndReceive()
}

func quarter(q string) *policiesv1.EditsHeader {
	return &policiesv1.EditsHeader{PayerId: "P1", Table: pairTable, Quarter: q}
}

func (h *house) setsOn(days ...string) []string {
	var out []string
	for _, s := range h.book.For(book.Query{PayerID: "P1", ServiceDates: days}).Edits {
		out = append(out, s.Ref+" "+s.Governs.Start+".."+s.Governs.End)
	}
	return out
}

func TestTablesGovernFromTheirQuarter(t *testing.T) {
	h := open(t)
	c := h.editsClient(t)
	first, err := send(t, c, quarter("2026Q1"), sample.PairTable())
	require.NoError(t, err)
	require.EqualValues(t, 1, first.GetVersion())
	require.EqualValues(t, 13, first.GetRowCount())

	again, err := send(t, c, quarter("2026Q1"), sample.PairTable())
	require.NoError(t, err)
	require.True(t, again.GetUnchanged())
	require.EqualValues(t, 1, again.GetVersion())

	units := quarter("2026Q1")
	units.Table = policiesv1.EditTable_EDIT_TABLE_MUE_PRACTITIONER
	_, err = send(t, c, units, sample.UnitTable())
	require.NoError(t, err)
	shorter := bytes.Replace(sample.PairTable(), []byte("93000\t93010\t\t20000101\t*\t0\tHCPCS/CPT procedure code definition\n"), nil, 1)
	second, err := send(t, c, quarter("2026Q2"), shorter)
	require.NoError(t, err)
	require.EqualValues(t, 2, second.GetVersion())
	require.EqualValues(t, 12, second.GetRowCount())
	// The first quarter's table is corrected after the second's was published.
	third, err := send(t, c, quarter("2026Q1"), shorter)
	require.NoError(t, err)
	require.NoError(t, h.book.WaitFor(h.ctx, third.GetToken()))

	require.Empty(t, h.setsOn("2025-12-31"))
	require.Equal(t, []string{"mue-practitioner@1+ptp-practitioner@3 2026-01-01..2026-03-31"}, h.setsOn("2026-01-15"))
	require.Equal(t, []string{"mue-practitioner@1+ptp-practitioner@2 2026-04-01.."}, h.setsOn("2026-08-01"))
	require.Len(t, h.setsOn("2026-03-31", "2026-04-01"), 2)

	held := h.book.For(book.Query{PayerID: "P1", ServiceDates: []string{"2026-01-15"}}).Edits[0]
	made, err := held.Compiled()
	require.NoError(t, err)
	pairs, limits := made.Size()
	require.Equal(t, [2]int{12, 8}, [2]int{pairs, limits})
	require.Equal(t, "mue-practitioner@1+ptp-practitioner@3", made.Version())
	sameOnce, err := h.book.For(book.Query{PayerID: "P1", ServiceDates: []string{"2026-02-15"}}).Edits[0].Compiled()
	require.NoError(t, err)
	require.Same(t, made, sameOnce, "compiled once a set")

	list, err := h.ListEditTables(h.ctx, &policiesv1.ListEditTablesRequest{PayerId: "P1"})
	require.NoError(t, err)
	require.Len(t, list.GetTables(), 4)
	require.Equal(t, "2026Q1", list.GetTables()[0].GetQuarter())

	chunks := 0
	require.NoError(t, follow(h, func(r eventstore.Recorded) {
		if _, ok := r.Event.(*eventsv1.EditChunkRecorded); ok {
			chunks++
		}
	}))
	require.Equal(t, 3, chunks, "the corrected quarter names the chunk of the other")
}

func TestABadTableChangesNothing(t *testing.T) {
	h := open(t)
	c := h.editsClient(t)
	for name, x := range map[string]struct {
		header  *policiesv1.EditsHeader
		content string
		rule    string
	}{
		"no rows":            {quarter("2026Q1"), "nothing here", "edits.headings"},
		"one bad row":        {quarter("2026Q1"), string(sample.PairTable()) + "123\t80053\t\t20260101\t*\t0\tx\n", "edits.code"},
		"no such quarter":    {quarter("2026Q5"), string(sample.PairTable()), "field.string.pattern"},
		"no payer":           {&policiesv1.EditsHeader{Table: pairTable, Quarter: "2026Q1"}, "", ""},
		"another payer's":    {&policiesv1.EditsHeader{PayerId: "P2", Table: pairTable, Quarter: "2026Q1"}, string(sample.PairTable()), ""},
		"a table of nothing": {&policiesv1.EditsHeader{PayerId: "P1", Quarter: "2026Q1"}, string(sample.PairTable()), "field.enum.not_in"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := send(t, c, x.header, []byte(x.content))
			require.ErrorContains(t, err, x.rule)
		})
	}
	n := 0
	require.NoError(t, follow(h, func(eventstore.Recorded) { n++ }))
	require.Zero(t, n)
}

func TestProvidersStanding(t *testing.T) {
	h := open(t)
	status := &policiesv1.RecordProviderStatusRequest{RequestId: "a", PayerId: "P1", Npi: "1234567893", InactiveFrom: "2026-03-01", DeceasedOn: "2026-02-27"}
	a, err := h.RecordProviderStatus(h.ctx, status)
	require.NoError(t, err)
	require.NoError(t, h.book.WaitFor(h.ctx, a.GetToken()))
	got := h.book.For(book.Query{PayerID: "P1", NPIs: []string{"1111111112", "1234567893"}}).Providers
	require.Len(t, got, 1)
	require.Equal(t, book.Provider{NPI: "1234567893", InactiveFrom: "2026-03-01", DeceasedOn: "2026-02-27"}, *got[0])
	require.Empty(t, h.book.For(book.Query{PayerID: "P2", NPIs: []string{"1234567893"}}).Providers)
	for name, c := range map[string]struct {
		edit func(*policiesv1.RecordProviderStatusRequest)
		rule string
	}{
		"a mistyped NPI":              {func(r *policiesv1.RecordProviderStatusRequest) { r.Npi = "1234567890" }, "provider.npi.check-digit"},
		"active again before":         {func(r *policiesv1.RecordProviderStatusRequest) { r.ReactivatedFrom = "2026-02-01" }, "provider.reactivated.before-inactive"},
		"a day that is none":          {func(r *policiesv1.RecordProviderStatusRequest) { r.DeceasedOn = "2026-02-30" }, "date.calendar"},
		"the same id for another day": {func(r *policiesv1.RecordProviderStatusRequest) { r.DeceasedOn = "2026-02-20" }, "request_id.reused"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &policiesv1.RecordProviderStatusRequest{RequestId: "a", PayerId: "P1", Npi: status.GetNpi(), InactiveFrom: status.GetInactiveFrom(), DeceasedOn: status.GetDeceasedOn()}
			c.edit(r)
			_, err := h.RecordProviderStatus(h.ctx, r)
			require.Equal(t, c.rule, problem.As(err).Problems[0].RuleID)
		})
	}
}

func TestAuthorizationsAreGivenToProvidersAndCancelled(t *testing.T) {
	h := open(t).stocked(t)
	h.enrol(t, "e", person("Ann"))
	auth := func(status string) *policiesv1.RecordPriorAuthorizationRequest {
		return &policiesv1.RecordPriorAuthorizationRequest{RequestId: "auth" + status, Authorization: &policiesv1.PriorAuthorization{
			Number: "PA-1", PayerId: "P1", MemberId: "CARD-77", BirthDate: "1984-03-12", Procedures: []string{"97110"}, Units: 8, Effective: from("2026-01-01"),
			Npis: []string{"1234567893"}, Status: status}}
	}
	a, err := h.RecordPriorAuthorization(h.ctx, auth("approved"))
	require.NoError(t, err)
	require.NoError(t, h.book.WaitFor(h.ctx, a.GetToken()))
	asked := func() *book.Authorization {
		return h.book.For(book.Query{PayerID: "P1", Authorizations: [][]byte{h.Index.Authorization("P1", "PA-1")}}).Authorizations[0]
	}
	require.Equal(t, []string{"1234567893"}, asked().NPIs)
	require.False(t, asked().Cancelled)

	a, err = h.RecordPriorAuthorization(h.ctx, auth("cancelled"))
	require.NoError(t, err)
	require.NoError(t, h.book.WaitFor(h.ctx, a.GetToken()))
	require.True(t, asked().Cancelled)
	repeated, err := h.RecordPriorAuthorization(h.ctx, auth("cancelled"))
	require.NoError(t, err)
	require.Equal(t, a.GetToken(), repeated.GetToken())
	_, err = h.RecordPriorAuthorization(h.ctx, &policiesv1.RecordPriorAuthorizationRequest{RequestId: "x", Authorization: func() *policiesv1.PriorAuthorization {
		p := auth("approved").GetAuthorization()
		p.Units = 99
		return p
	}()})
	refused(t, err, problem.Conflict, "authorization.cancelled")
}
