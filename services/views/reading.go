package views

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Reading is one look at a view: the live build of each shard, found once.
// Use it for one request and drop it.
type Reading struct {
	view   *View
	builds []Build // by shard
}

// Ref is a key within the shard that holds it.
type Ref struct {
	Shard uint32
	Key   string
}

// at is where a reference is in the store. A shard that doesn't exist has no
// build, so its keys are absent.
func (r *Reading) at(ref Ref) At {
	for _, b := range r.builds {
		if b.Shard == ref.Shard {
			return At{Build: b, Key: ref.Key}
		}
	}
	return At{Build: Build{View: r.view.projection.Name, Shard: ref.Shard}, Key: ref.Key}
}

// Hashes loads whole hashes at once; an absent one is nil.
func (r *Reading) Hashes(ctx context.Context, refs ...Ref) ([]map[string]string, error) {
	looks := make([]Fields, len(refs))
	for i, ref := range refs {
		looks[i].At = r.at(ref)
	}
	return r.view.store.Hashes(ctx, looks...)
}

// Look asks for fields of the hash at a key.
type Look struct {
	Ref
	Fields []string
}

// Fields loads single fields of hashes at once: for each look its fields'
// values in order, nil where absent.
func (r *Reading) Fields(ctx context.Context, looks ...Look) ([][]*string, error) {
	asked := make([]Fields, len(looks))
	for i, l := range looks {
		asked[i] = Fields{At: r.at(l.Ref), Fields: l.Fields}
		if l.Fields == nil {
			asked[i].Fields = []string{} // none, where nil would be all
		}
	}
	found, err := r.view.store.Hashes(ctx, asked...)
	if err != nil {
		return nil, err
	}
	out := make([][]*string, len(looks))
	for i, h := range found {
		out[i] = make([]*string, len(looks[i].Fields))
		for n, field := range looks[i].Fields {
			if text, ok := h[field]; ok {
				out[i][n] = &text
			}
		}
	}
	return out, nil
}

// Find loads the hash at key from whichever shard has it, and says which;
// nil when none has. For keys that one shard only writes, as a claim's.
func (r *Reading) Find(ctx context.Context, key string) (Ref, map[string]string, error) {
	refs := r.everywhere(key)
	all, err := r.Hashes(ctx, refs...)
	if err != nil {
		return Ref{}, nil, err
	}
	for i, h := range all {
		if h != nil {
			return refs[i], h, nil
		}
	}
	return Ref{}, nil, nil
}

// Sum adds up a hash of integers over all shards, field by field.
func (r *Reading) Sum(ctx context.Context, key string) (map[string]int64, error) {
	all, err := r.Hashes(ctx, r.everywhere(key)...)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for _, h := range all {
		for field, value := range h {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, errors.New("views: Sum of a hash whose field " + field + " is no integer")
			}
			out[field] += n
		}
	}
	return out, nil
}

// Members returns a set's members over all shards, sorted.
func (r *Reading) Members(ctx context.Context, key string) ([]string, error) {
	parts, err := r.view.store.Members(ctx, r.everyAt(key)...)
	if err != nil {
		return nil, err
	}
	out := slices.Concat(parts...)
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Count returns the size of a sorted set over all shards.
func (r *Reading) Count(ctx context.Context, key string) (int64, error) {
	return r.view.store.Count(ctx, r.everyAt(key)...)
}

func (r *Reading) everyAt(key string) []At {
	out := make([]At, len(r.builds))
	for i, b := range r.builds {
		out[i] = At{Build: b, Key: key}
	}
	return out
}

func (r *Reading) everywhere(key string) []Ref {
	refs := make([]Ref, len(r.builds))
	for i, b := range r.builds {
		refs[i] = Ref{b.Shard, key}
	}
	return refs
}

// Member is an element of a sorted set and the shard that holds it.
type Member struct {
	Name  string
	Score int64
	Shard uint32
}

// Page asks for a part of a sorted set that spans the shards.
type Page struct {
	// Min and Max bound the score, both included; nil is unbounded.
	Min, Max *int64
	// Descending is highest score first.
	Descending bool
	// After is the last member of the page before; nil begins.
	After *Member
	// Limit is how many at most; 0 is 100, more than 1,000 is 1,000.
	Limit int
}

// Range returns a page, ordered by score, then name, over all shards.
func (r *Reading) Range(ctx context.Context, key string, page Page) ([]Member, error) {
	if page.Limit <= 0 {
		page.Limit = 100
	}
	page.Limit = min(page.Limit, 1000)
	var out []Member
	for _, at := range r.everyAt(key) {
		part, err := r.view.store.Range(ctx, at, page)
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	slices.SortFunc(out, page.Compare)
	return out[:min(len(out), page.Limit)], nil
}

// Compare is the order of a page's members, total over shards: by score, then name.
func (p Page) Compare(a, b Member) int {
	c := cmp.Or(cmp.Compare(a.Score, b.Score), strings.Compare(a.Name, b.Name))
	if p.Descending {
		return -c
	}
	return c
}
