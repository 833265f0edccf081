package claims

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
)

// Page sizes, and how many rows a filtered page looks at before it answers
// with what it has and a token to go on.
const (
	defaultPage = 50
	maxPage     = 1000
	maxScanned  = 5000
)

// listing is one walk over a kind's indexes.
type listing[R any] struct {
	kind      string
	indexes   []string // walked together; an id in several appears once
	ascending bool
	size      int
	filter    string // what the page token is bound to
	token     string
	row       func(map[string]string) (R, error)
	keep      func(R) bool
}

// pageOf reads a page of rows. Rows that the filter drops cost a look but no
// place on the page.
func pageOf[R any](ctx context.Context, r *views.Reading, l listing[R]) (rows []R, next string, err error) {
	if l.size <= 0 {
		l.size = defaultPage
	}
	l.size = min(l.size, maxPage)
	after, err := parsePageToken(l.token, l.filter)
	if err != nil {
		return nil, "", err
	}
	for scanned := 0; ; {
		members, err := l.members(ctx, r, after)
		if err != nil {
			return nil, "", err
		}
		found, err := rowsOf(ctx, r, rowKind(l.kind), members)
		if err != nil {
			return nil, "", err
		}
		for i, fields := range found {
			after = &members[i]
			if fields == nil {
				continue
			}
			row, err := l.row(fields)
			if err != nil {
				return nil, "", err
			}
			if !l.keep(row) {
				continue
			}
			if rows = append(rows, row); len(rows) == l.size {
				return rows, pageToken(after, l.filter), nil
			}
		}
		if len(members) < l.size {
			return rows, "", nil
		}
		if scanned += len(members); scanned >= maxScanned {
			return rows, pageToken(after, l.filter), nil
		}
	}
}

// members are the next l.size ids of all indexes together.
func (l listing[R]) members(ctx context.Context, r *views.Reading, after *views.Member) ([]views.Member, error) {
	var out []views.Member
	for _, index := range l.indexes {
		part, err := r.Range(ctx, index, views.Page{Descending: !l.ascending, After: after, Limit: l.size})
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	if len(l.indexes) > 1 {
		slices.SortFunc(out, func(a, b views.Member) int {
			c := cmp.Or(cmp.Compare(a.Score, b.Score), strings.Compare(a.Name, b.Name))
			if !l.ascending {
				c = -c
			}
			return c
		})
		out = slices.CompactFunc(out, func(a, b views.Member) bool { return a.Name == b.Name })
	}
	return bounded(out, l.size), nil
}

// rowsOf loads the rows of members by part; a row that is not there is nil.
func rowsOf(ctx context.Context, r *views.Reading, kind string, members []views.Member) ([]map[string]string, error) {
	looks := make([]views.Look, len(members))
	for i, m := range members {
		looks[i].Ref = views.Ref{Shard: m.Shard, Key: rowsKey(kind)}
		for _, p := range rowParts[kind] {
			looks[i].Fields = append(looks[i].Fields, rowField(m.Name, p))
		}
	}
	found, err := r.Fields(ctx, looks...)
	if err != nil {
		return nil, err
	}
	rows := make([]map[string]string, len(members))
	for i, values := range found {
		for n, v := range values {
			if v == nil {
				continue
			}
			if rows[i] == nil {
				rows[i] = map[string]string{}
			}
			rows[i][rowParts[kind][n]] = *v
		}
	}
	return rows, nil
}

// rowKind is the kind of row that an index of a kind lists.
func rowKind(kind string) string {
	switch kind {
	case kindPended:
		return kindClaims
	case kindTasks, kindAppeals:
		return kindWork
	case kindPaying:
		return kindPayments
	case kindPaymentTasks: // its own parts of the payments' rows
		return kindPaymentTasks
	}
	return kind
}

// indexesFor are the indexes that together hold every row of a scope, those
// of one payer where only that is asked for.
func indexesFor(kind string, scope identity.Scope, payer string) []string {
	if scope.All {
		if payer != "" {
			return []string{payerIndex(kind, payer)}
		}
		return []string{allIndex(kind)}
	}
	var out []string
	if scope.Org != "" {
		out = append(out, orgIndex(kind, scope.Org))
	}
	for _, p := range scope.Payers {
		if payer == "" || p == payer {
			out = append(out, payerIndex(kind, p))
		}
	}
	return out
}

// A page token is the last row seen and a hash of the filter, so that a token
// can't be carried to another list, where its place would mean nothing.
func pageToken(last *views.Member, filter string) string {
	if last == nil {
		return ""
	}
	sum := sha256.Sum256([]byte(filter))
	b := append([]byte{1}, sum[:8]...)
	b = binary.BigEndian.AppendUint64(b, uint64(last.Score))
	return base64.RawURLEncoding.EncodeToString(append(b, last.Name...))
}

func parsePageToken(token, filter string) (*views.Member, error) {
	if token == "" {
		return nil, nil
	}
	bad := problem.Invalidf("claims.page-token", "page_token", "the page token is not of this list; repeat the request without it, or with the filter it came from")
	sum := sha256.Sum256([]byte(filter))
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 18 || len(b) > 100 || b[0] != 1 || string(b[1:9]) != string(sum[:8]) {
		return nil, bad
	}
	return &views.Member{Score: int64(binary.BigEndian.Uint64(b[9:17])), Name: string(b[17:])}, nil
}

// filterOf names a filter and whose it is.
func filterOf(p identity.Principal, parts ...string) string {
	return strings.Join(append([]string{p.Subject, p.Org}, parts...), "\x00")
}

// ListClaims implements claimsv1connect.ClaimsServiceHandler.
func (s *Service) ListClaims(ctx context.Context, req *claimsv1.ListClaimsRequest) (*claimsv1.ListClaimsResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ListClaims", identity.Resource{Type: identity.Claim, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	scope := identity.ScopeOf(caller)
	l := listing[*claimsv1.ClaimSummary]{
		kind:    kindClaims,
		indexes: indexesFor(kindClaims, scope, req.GetPayerId()),
		size:    int(req.GetPageSize()),
		filter:  filterOf(caller, "claims", req.GetStatus().String(), req.GetFileId(), req.GetPayerId(), req.GetBillingNpi()),
		token:   req.GetPageToken(),
		row:     claimRow,
		keep: func(c *claimsv1.ClaimSummary) bool {
			return scope.Includes(c.GetSubmitterOrg(), c.GetPayerId()) &&
				(req.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_UNSPECIFIED || req.GetStatus() == c.GetStatus()) &&
				(req.GetPayerId() == "" || req.GetPayerId() == c.GetPayerId()) &&
				(req.GetBillingNpi() == "" || req.GetBillingNpi() == c.GetBillingNpi())
		},
	}
	switch {
	case req.GetFileId() != "":
		l.indexes, l.ascending = []string{fileIndex(kindClaims, req.GetFileId())}, true
	case req.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		l.kind, l.indexes = kindPended, indexesFor(kindPended, scope, req.GetPayerId())
	}
	reading, err := s.view.At(ctx, req.GetMinToken())
	if err != nil {
		return nil, err
	}
	rows, next, err := pageOf(ctx, reading, l)
	if err != nil {
		return nil, err
	}
	return &claimsv1.ListClaimsResponse{Claims: rows, NextPageToken: next}, nil
}

// ListFiles implements claimsv1connect.FileServiceHandler.
func (s *Service) ListFiles(ctx context.Context, req *claimsv1.ListFilesRequest) (*claimsv1.ListFilesResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ListFiles", identity.Resource{Type: identity.File}); err != nil {
		return nil, err
	}
	scope := identity.ScopeOf(caller)
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return nil, err
	}
	rows, next, err := pageOf(ctx, reading, listing[*claimsv1.File]{
		kind: kindFiles, indexes: indexesFor(kindFiles, scope, ""), size: int(req.GetPageSize()),
		filter: filterOf(caller, "files"), token: req.GetPageToken(), row: fileRow,
		keep: func(f *claimsv1.File) bool { return scope.Includes(f.GetSubmitterOrg(), "") },
	})
	if err != nil {
		return nil, err
	}
	return &claimsv1.ListFilesResponse{Files: rows, NextPageToken: next}, nil
}

// ListRemittances implements claimsv1connect.RemittanceServiceHandler. The
// rows don't carry their claims; GetRemittance does.
func (s *Service) ListRemittances(ctx context.Context, req *claimsv1.ListRemittancesRequest) (*claimsv1.ListRemittancesResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ListRemittances", identity.Resource{Type: identity.Remittance}); err != nil {
		return nil, err
	}
	scope := identity.ScopeOf(caller)
	l := listing[*claimsv1.Remittance]{
		kind: kindRemittances, indexes: indexesFor(kindRemittances, scope, ""), size: int(req.GetPageSize()),
		filter: filterOf(caller, "remittances", req.GetFileId()), token: req.GetPageToken(), row: remittanceRow,
		keep: func(m *claimsv1.Remittance) bool { return scope.Includes(m.GetSubmitterOrg(), m.GetPayerId()) },
	}
	if req.GetFileId() != "" {
		l.indexes = []string{fileIndex(kindRemittances, req.GetFileId())}
		// Who has just seen a file completed asks what it came to.
		s.ownListed(ctx)
	}
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return nil, err
	}
	rows, next, err := pageOf(ctx, reading, l)
	if err != nil {
		return nil, err
	}
	return &claimsv1.ListRemittancesResponse{Remittances: rows, NextPageToken: next}, nil
}

func millis(ms int64) *timestamppb.Timestamp { return timestamppb.New(time.UnixMilli(ms)) }
