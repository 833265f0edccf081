package book

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/edits"
)

// table is one published version of one table of claim edits.
type table struct {
	kind    policiesv1.EditTable
	version uint32
	quarter string
	start   string // first day it governs
	rows    uint32
	sums    [][]byte
	chunks  [][]byte // compressed, in the order of sums
}

// EditSet is the tables of claim edits that govern a payer's claims in a run
// of days: of each kind the quarter's last published version.
type EditSet struct {
	// Ref names the versions, "mue-practitioner@2+ptp-practitioner@5", as decisions record it.
	Ref     string
	Governs policies.Period
	tables  []*table

	once sync.Once // guards made and err
	made *adjudication.Edits
	err  error
}

// Compiled is the set in the engine's form. The first call unpacks every
// chunk, seconds for the full tables, while the others wait; it is kept as
// long as the set.
func (s *EditSet) Compiled() (*adjudication.Edits, error) {
	s.once.Do(func() { s.made, s.err = s.compile() })
	return s.made, s.err
}

func (s *EditSet) compile() (*adjudication.Edits, error) {
	start, err := adjudication.ParseDate(s.Governs.Start)
	if err != nil {
		return nil, err
	}
	end, err := adjudication.ParseDate(s.Governs.End)
	if err != nil {
		return nil, err
	}
	b := adjudication.NewEdits(s.Ref, adjudication.Period{Start: start, End: end})
	for _, t := range s.tables {
		for i, content := range t.chunks {
			m, err := edits.Open(content, t.sums[i])
			if err != nil {
				return nil, err
			}
			if err := edits.Fill(b, t.kind, m); err != nil {
				return nil, err
			}
		}
	}
	return b.Compile()
}

// chunked keeps a chunk until a table names it; mu is held.
func (b *Book) chunked(stream string, e *eventsv1.EditChunkRecorded) {
	if b.chunks[stream] == nil {
		b.chunks[stream] = map[string][]byte{}
	}
	b.chunks[stream][string(e.GetSha256())] = e.GetContent()
}

// tabled publishes a version; mu is held.
func (b *Book) tabled(stream string, e *eventsv1.EditTablePublished) error {
	t := &table{kind: e.GetTable(), version: e.GetVersion(), quarter: e.GetQuarter(), start: e.GetEffectiveDate(), rows: e.GetRowCount(), sums: e.GetChunks()}
	for _, sum := range t.sums {
		content, ok := b.chunks[stream][string(sum)]
		if !ok {
			return fmt.Errorf("book: %s@%d names a chunk that isn't there", edits.Name(t.kind), t.version)
		}
		t.chunks = append(t.chunks, content)
	}
	tables := slices.Clone(b.tables[e.GetPayerId()])
	b.tables[e.GetPayerId()] = append(tables, t)
	b.sets[e.GetPayerId()] = setsOf(b.tables[e.GetPayerId()], b.sets[e.GetPayerId()])
	return nil
}

// setsOf cuts time at each quarter that has a table. A set that is as before
// keeps its identity: readers cache what they compiled from it.
func setsOf(tables []*table, before []*EditSet) []*EditSet {
	var starts []string
	for _, t := range tables {
		starts = append(starts, t.start)
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	out := make([]*EditSet, 0, len(starts))
	for i, start := range starts {
		governing := map[policiesv1.EditTable]*table{}
		for _, t := range tables {
			have := governing[t.kind]
			if t.start <= start && (have == nil || cmp.Or(strings.Compare(t.start, have.start), cmp.Compare(t.version, have.version)) > 0) {
				governing[t.kind] = t
			}
		}
		set := &EditSet{Governs: policies.Period{Start: start}}
		if i+1 < len(starts) {
			set.Governs.End = policies.DayBefore(starts[i+1])
		}
		var names []string
		for _, t := range governing {
			set.tables = append(set.tables, t)
		}
		slices.SortFunc(set.tables, func(a, b *table) int { return strings.Compare(edits.Name(a.kind), edits.Name(b.kind)) })
		for _, t := range set.tables {
			names = append(names, policies.Ref(edits.Name(t.kind), t.version))
		}
		set.Ref = strings.Join(names, "+")
		if same := slices.IndexFunc(before, func(s *EditSet) bool { return s.Ref == set.Ref && s.Governs == set.Governs }); same >= 0 {
			set = before[same]
		}
		out = append(out, set)
	}
	return out
}

// editsFor returns the sets that govern one of the days; mu is held.
func (b *Book) editsFor(payerID string, days []string) []*EditSet {
	var out []*EditSet
	for _, set := range b.sets[payerID] {
		if slices.ContainsFunc(days, set.Governs.Contains) {
			out = append(out, set)
		}
	}
	return out
}

// EditTables implements policies.Directory.
func (b *Book) EditTables(payerID string) []*policiesv1.EditTableVersion {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []*policiesv1.EditTableVersion
	for _, t := range b.tables[payerID] {
		digest := sha256.New()
		for _, sum := range t.sums {
			_, _ = digest.Write(sum)
		}
		out = append(out, &policiesv1.EditTableVersion{Table: t.kind, Version: t.version, Quarter: t.quarter, RowCount: t.rows, Digest: digest.Sum(nil)})
	}
	slices.SortFunc(out, func(x, y *policiesv1.EditTableVersion) int {
		return cmp.Or(cmp.Compare(x.GetTable(), y.GetTable()), cmp.Compare(x.GetVersion(), y.GetVersion()))
	})
	return out
}

// Provider is what a payer knows of a provider's standing. Empty days are none.
type Provider struct {
	NPI                           string
	InactiveFrom, ReactivatedFrom string // first days
	DeceasedOn                    string
}
