package policies

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/policies/edits"
	"github.com/probity-health/probity/services/problem"
)

// tableStream holds one payer's versions of one table and the chunks they are
// made of: one stream, so that whoever follows the log has a version's chunks
// before the version.
func tableStream(payerID string, kind policiesv1.EditTable) string {
	sum := sha256.Sum256([]byte(payerID + "\x00" + edits.Name(kind)))
	return "edits-" + hex.EncodeToString(sum[:16])
}

// ImportEdits implements the RPC. It may be repeated, also after it stopped
// half way: chunks are known by their content, and a table that equals the
// quarter's newest is not published again.
func (h *Handler) ImportEdits(ctx context.Context, stream *connect.ClientStream[policiesv1.ImportEditsRequest]) (*policiesv1.ImportEditsResponse, error) {
	if !stream.Receive() {
		if err := stream.Err(); err != nil {
			return nil, err
		}
		return nil, missing("header")
	}
	header := stream.Msg().GetHeader()
	if header == nil {
		return nil, missing("header")
	}
	return h.importEdits(ctx, header, &partReader{stream: stream})
}

// partReader reads the data of a stream's messages.
type partReader struct {
	stream *connect.ClientStream[policiesv1.ImportEditsRequest]
	rest   []byte
}

func (r *partReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if !r.stream.Receive() {
			if err := r.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		if r.stream.Msg().GetHeader() != nil {
			return 0, problem.New(problem.Invalid, problem.Problem{RuleID: "edits.header", FieldPath: "header", Message: "the header comes once, before the data", Fix: "send one file a call"})
		}
		r.rest = r.stream.Msg().GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (h *Handler) importEdits(ctx context.Context, header *policiesv1.EditsHeader, data io.Reader) (*policiesv1.ImportEditsResponse, error) {
	if err := h.Authorizer.Authorize(ctx, "ImportEdits", identity.Resource{Type: identity.EditTable, Payer: header.GetPayerId()}); err != nil {
		return nil, err
	}
	if ps := Validate(header); len(ps) > 0 {
		return nil, under("header", invalid(ps))
	}
	start, ok := edits.FirstDay(header.GetQuarter())
	if !ok {
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "edits.quarter", FieldPath: "header.quarter", Message: "not a quarter", Fix: `write it "2026Q1"`})
	}
	table, err := edits.Read(data, header.GetTable())
	if err != nil {
		var p *problem.Error
		if !errors.As(err, &p) {
			p = problem.New(problem.Unavailable, problem.Problem{RuleID: "edits.reading", Message: "the file could not be read to its end", Fix: "send it again"}).Because(err)
		}
		return nil, p
	}
	chunks, err := table.Chunks()
	if err != nil {
		return nil, problem.As(err)
	}
	return h.publishTable(ctx, header, start, table.Rows(), chunks)
}

// publishTable records what of a table isn't on the ledger yet, and then the version.
func (h *Handler) publishTable(ctx context.Context, header *policiesv1.EditsHeader, start string, rows int, chunks []edits.Chunk) (*policiesv1.ImportEditsResponse, error) {
	stream := tableStream(header.GetPayerId(), header.GetTable())
	events, err := h.Store.Read(ctx, Log, stream, stream, 0)
	if err != nil {
		return nil, err
	}
	published := &eventsv1.EditTablePublished{PayerId: header.GetPayerId(), Table: header.GetTable(), Version: 1, Quarter: header.GetQuarter(),
		EffectiveDate: start, RowCount: uint32(rows)}
	for _, c := range chunks {
		published.Chunks = append(published.Chunks, c.SHA256[:])
	}
	have := map[[32]byte]bool{}
	var newest *eventsv1.EditTablePublished // of the quarter
	for _, r := range events {
		switch e := r.Event.(type) {
		case *eventsv1.EditChunkRecorded:
			have[[32]byte(e.GetSha256())] = true
		case *eventsv1.EditTablePublished:
			published.Version = e.GetVersion() + 1
			if e.GetQuarter() == header.GetQuarter() {
				newest = e
			}
		}
	}
	if newest != nil && slices.EqualFunc(newest.GetChunks(), published.GetChunks(), bytes.Equal) {
		return &policiesv1.ImportEditsResponse{Version: newest.GetVersion(), RowCount: newest.GetRowCount(), Unchanged: true, Token: events[len(events)-1].Position.Token()}, nil
	}
	at, token := len(events), ""
	commit := func(batch []proto.Message, id string) error {
		a, err := h.Store.Append(ctx, commitOf(ctx, commitID(id, stream), stream, at, batch))
		if eventstore.IsConflict(err) || isReused(err) {
			return problem.New(problem.Unavailable, problem.Problem{RuleID: "edits.contended",
				Message: "another import of the same table was going on", Fix: "send this one again: what is recorded of it stays"}).Because(err)
		}
		if err != nil {
			return err
		}
		at, token = at+len(batch), a.Token
		h.wrote(a.Position)
		return nil
	}
	var batch []proto.Message
	size := 0
	for i, c := range chunks {
		if have[c.SHA256] {
			continue
		}
		have[c.SHA256] = true
		if size+len(c.Content) > maxChunkCommit && len(batch) > 0 {
			if err := commit(batch, "chunks/"+strconv.Itoa(at)); err != nil {
				return nil, err
			}
			batch, size = nil, 0
		}
		batch, size = append(batch, &eventsv1.EditChunkRecorded{Sha256: chunks[i].SHA256[:], Content: c.Content}), size+len(c.Content)
	}
	if len(batch) > 0 {
		if err := commit(batch, "chunks/"+strconv.Itoa(at)); err != nil {
			return nil, err
		}
	}
	if err := commit([]proto.Message{published}, "table/"+strconv.Itoa(int(published.GetVersion()))); err != nil {
		return nil, err
	}
	return &policiesv1.ImportEditsResponse{Version: published.GetVersion(), RowCount: published.GetRowCount(), Token: token}, nil
}

// maxChunkCommit keeps a commit of chunks well below the ledger's 921,600 bytes.
const maxChunkCommit = 600_000

// ListEditTables implements the RPC.
func (h *Handler) ListEditTables(ctx context.Context, req *policiesv1.ListEditTablesRequest) (*policiesv1.ListEditTablesResponse, error) {
	if err := h.Authorizer.Authorize(ctx, "ListEditTables", identity.Resource{Type: identity.EditTable, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	if err := h.awaitOwnWrites(ctx); err != nil {
		return nil, err
	}
	return &policiesv1.ListEditTablesResponse{Tables: h.Directory.EditTables(req.GetPayerId())}, nil
}

// RecordProviderStatus implements the RPC.
func (h *Handler) RecordProviderStatus(ctx context.Context, req *policiesv1.RecordProviderStatusRequest) (*policiesv1.RecordProviderStatusResponse, error) {
	if err := h.Authorizer.Authorize(ctx, "RecordProviderStatus", identity.Resource{Type: identity.Provider, ID: req.GetNpi(), Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	if ps := check(req, lintProviderStatus); len(ps) > 0 {
		return nil, invalid(ps)
	}
	want := &eventsv1.ProviderStatusRecorded{PayerId: req.GetPayerId(), Npi: req.GetNpi(),
		InactiveFrom: req.GetInactiveFrom(), ReactivatedFrom: req.GetReactivatedFrom(), DeceasedOn: req.GetDeceasedOn()}
	sum := sha256.Sum256([]byte(req.GetPayerId()))
	done, err := h.record(ctx, work{
		requestID: req.GetRequestId(),
		stream:    "provider-" + req.GetNpi() + "-" + hex.EncodeToString(sum[:8]),
		decide: func(_ context.Context, events []eventstore.Recorded) ([]proto.Message, error) {
			if n := len(events); n > 0 && proto.Equal(events[n-1].Event, want) {
				return nil, nil
			}
			return []proto.Message{want}, nil
		},
		says: func(_ context.Context, r eventstore.Recorded) (bool, error) { return proto.Equal(r.Event, want), nil },
	})
	if err != nil {
		return nil, err
	}
	return &policiesv1.RecordProviderStatusResponse{Token: done.token}, nil
}
