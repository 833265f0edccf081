package x12

import (
	"errors"
	"io"
	"iter"
	"sort"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/problem"
)

// File is what ParseFile found: what stands where and what is wrong. It holds
// no claims and is safe for concurrent use.
type File struct {
	Interchanges []*Interchange
	// ClaimCount is the claims of accepted transaction sets, rejected ones included.
	ClaimCount int
	// RejectedClaims is how many of those are rejected by themselves.
	RejectedClaims int
	// LostClaims is the claims of rejected transaction sets.
	LostClaims int
	// Size in bytes.
	Size int64

	problems []problem.Problem
	unlisted int // problems beyond the limit
	faults   int // kept in the sets
	sets     []*Set
	marks    []mark
	limits   Limits
}

// Interchange is one ISA to IEA.
type Interchange struct {
	SenderQualifier, Sender     string
	ReceiverQualifier, Receiver string
	Date, Time                  string // as sent: YYMMDD, HHMM
	Control, Usage              string
	Groups                      []*Group
	Rejected                    bool
	// Code is TA105, "000" when sound.
	Code string
}

// Group is one GS to GE.
type Group struct {
	FunctionalID, Sender, Receiver, Control, Version string
	Sets                                             []*Set
	// Declared is GE01, the number of sets the sender says there are.
	Declared int
	Rejected bool
	// Codes are AK905 to AK909: why the group is rejected.
	Codes []string
}

// Set is one transaction set, ST to SE.
type Set struct {
	ID, Control, Version string
	Reference            string // BHT03
	Submitter, Receiver  Party
	Claims               int
	Rejected             bool
	first                int // ordinal of its first claim
	rejects              int // claims rejected by themselves
	// Codes are IK502 to IK506.
	Codes []string
	// Faults with IK304 codes, for the acknowledgement; bounded over the file.
	Faults []Fault
}

// Claim is one claim of a file.
type Claim struct {
	// Ordinal in the file, from 0.
	Ordinal int
	// Claim as far as it could be read; fit to submit when Problems is empty.
	Claim *claimsv1.Claim
	// Problems reject the claim.
	Problems []problem.Problem
	// Statuses are the problems' 277CA statuses, "category:status[:entity]", without repeats.
	Statuses []string
	// Set is its transaction set; read only.
	Set *Set
}

// mark is a place where reading can start again: just before a segment that
// starts or precedes a claim.
type mark struct {
	ordinal int // of the next claim to be yielded
	offset  int64
	state   *reader
}

// markEvery is how many claims apart the marks are: reading a claim again
// costs at most so many claims before it, a mark about 2 KiB. Chunks of a file
// are a multiple of it, so that they mostly begin at a mark.
const markEvery = 50

// ParseFile reads a whole file and checks it. The error is for reading alone;
// what is wrong with the file is in its problems.
func ParseFile(r io.Reader, limits Limits) (*File, error) {
	f := &File{limits: limits.withDefaults()}
	rd := newReader(f, newTokenizer(r, 0, delimiters{}, limits), claimFiles)
	rd.marking = true
	rd.sink = func(o *openClaim) bool {
		if rd.set.Claims++; len(o.faults) > 0 {
			rd.set.rejects++
		}
		return true
	}
	if err := rd.run(); err != nil {
		return nil, err
	}
	f.Size = rd.tok.offset
	f.settle()
	return f, nil
}

// settle gives ordinals to the claims of the accepted sets.
func (f *File) settle() {
	for _, ic := range f.Interchanges {
		for _, g := range ic.Groups {
			for _, s := range g.Sets {
				s.Rejected = s.Rejected || ic.Rejected || g.Rejected
			}
		}
	}
	for _, s := range f.sets {
		s.first = f.ClaimCount
		if s.Rejected {
			f.LostClaims += s.Claims
		} else {
			f.ClaimCount += s.Claims
			f.RejectedClaims += s.rejects
		}
	}
	for i := range f.marks {
		m := &f.marks[i]
		if k := m.state.setIndex; k >= 0 {
			if m.ordinal = f.sets[k].first; !f.sets[k].Rejected {
				m.ordinal += m.state.claimIndex
			}
		}
	}
}

// Kind is "837P" or "837I", of the first group that has a known version; "" without one.
func (f *File) Kind() string {
	for _, ic := range f.Interchanges {
		for _, g := range ic.Groups {
			if k := kinds[g.Version]; k != "" {
				return k
			}
		}
	}
	return ""
}

// Control is the first interchange's control number.
func (f *File) Control() string {
	if len(f.Interchanges) == 0 {
		return ""
	}
	return f.Interchanges[0].Control
}

// Refused tells whether the whole file is: no claim of it can be decided.
func (f *File) Refused() bool { return f.ClaimCount == 0 }

// Problems are all that were found, in order, claims' included, up to the
// limit; the last then says how many more there are.
func (f *File) Problems() []problem.Problem {
	out := append([]problem.Problem(nil), f.problems...)
	if f.unlisted > 0 {
		out = append(out, problem.Problem{RuleID: "x12.file.more-problems", Message: itoa(f.unlisted) + " more problems are not listed", Fix: "correct those listed and send the file again"})
	}
	if f.ClaimCount == 0 && len(out) == 0 {
		out = append(out, problem.Problem{RuleID: "x12.file.no-claims", Message: "the file holds no claims", Fix: "send an 837 with at least one claim"})
	}
	return out
}

func (f *File) note(p problem.Problem) {
	if len(f.problems) >= f.limits.Problems {
		f.unlisted++
		return
	}
	f.problems = append(f.problems, p)
}

// Claims yields the claims with ordinals from first on, at most count, reading
// src, the file's content, from the nearest mark. A claim that is rejected by
// itself is yielded with its problems. An error ends it.
func (f *File) Claims(src io.ReaderAt, first, count int) iter.Seq2[*Claim, error] {
	return func(yield func(*Claim, error) bool) {
		last := min(first+count, f.ClaimCount)
		if first < 0 || first >= last {
			return
		}
		i := sort.Search(len(f.marks), func(i int) bool { return f.marks[i].ordinal > first }) - 1
		if i < 0 {
			yield(nil, errors.New("x12: no mark before the claim"))
			return
		}
		m := &f.marks[i]
		rd := m.state.resume(newTokenizer(io.NewSectionReader(src, m.offset, f.Size-m.offset), m.offset, m.state.tok.d, f.limits))
		next, stopped := first, false
		rd.sink = func(o *openClaim) bool {
			if rd.setIndex >= len(f.sets) {
				return false
			}
			set := f.sets[rd.setIndex]
			ordinal := set.first + rd.claimIndex
			if set.Rejected || ordinal < first {
				return true
			}
			next = ordinal + 1
			stopped = !yield(rd.present(o, set, ordinal), nil)
			return !stopped && next < last
		}
		if err := rd.run(); err != nil && !stopped {
			yield(nil, err)
		} else if next < last && !stopped {
			yield(nil, io.ErrUnexpectedEOF)
		}
	}
}

// present turns a read claim into what callers see.
func (rd *reader) present(o *openClaim, s *Set, ordinal int) *Claim {
	c := &Claim{Ordinal: ordinal, Claim: o.claim, Set: s}
	path := rd.path()
	seen := map[string]bool{}
	for i := range o.faults {
		f := &o.faults[i]
		c.Problems = append(c.Problems, f.problem(path))
		if f.Status != "" && !seen[f.Status] {
			seen[f.Status] = true
			c.Statuses = append(c.Statuses, f.Status)
		}
	}
	return c
}
