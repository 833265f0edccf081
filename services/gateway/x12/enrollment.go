package x12

import (
	"io"
	"iter"
	"time"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/problem"
)

// EnrollmentFile is what ParseEnrollment found: what stands where and what is
// wrong. It holds no members and is safe for concurrent use.
type EnrollmentFile struct {
	// MemberCount is the members' loops (2000) of accepted transaction sets,
	// RejectedMembers how many of those are rejected by themselves,
	// LostMembers those of rejected sets.
	MemberCount, RejectedMembers, LostMembers int

	file *File
}

// Member is one loop 2000 of a file.
type Member struct {
	// Ordinal in the file, from 0.
	Ordinal int
	// X12Path is where it begins: its INS.
	X12Path string
	// PayerID is N104 of loop 1000B, SponsorID that of 1000A.
	PayerID, SponsorID string
	// Changes are what it asks for: one a coverage (2300), or one for the
	// member where it names none. They keep the rules of their message when
	// Problems is empty.
	Changes []*policiesv1.EnrollmentChange
	// Problems reject the member.
	Problems []problem.Problem
}

// ParseEnrollment reads a whole 834 file and checks it. The error is for
// reading alone; what is wrong with the file is in its problems.
func ParseEnrollment(r io.Reader, limits Limits) (*EnrollmentFile, error) {
	f := &File{limits: limits.withDefaults()}
	rd := newReader(f, newTokenizer(r, 0, delimiters{}, limits), memberFiles)
	rd.members = func(o *openMember) bool {
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
	return &EnrollmentFile{MemberCount: f.ClaimCount, RejectedMembers: f.RejectedClaims, LostMembers: f.LostClaims, file: f}, nil
}

// Problems are all that were found, in order, members' included, up to the
// limit; the last then says how many more there are.
func (f *EnrollmentFile) Problems() []problem.Problem {
	if f.MemberCount == 0 && len(f.file.problems) == 0 {
		return []problem.Problem{{RuleID: "x12.file.no-members", Message: "the file holds no members", Fix: "send an 834 with at least one INS loop"}}
	}
	return f.file.Problems()
}

// Refused tells whether the whole file is: nothing of it can be applied.
func (f *EnrollmentFile) Refused() bool { return f.MemberCount == 0 }

// Acknowledge writes the file's 999; see Write999.
func (f *EnrollmentFile) Acknowledge(w io.Writer, env Envelope) error {
	return Write999(w, f.file, env)
}

// Enveloped tells whether there is an interchange to acknowledge.
func (f *EnrollmentFile) Enveloped() bool { return len(f.file.Interchanges) > 0 }

// Members yields the members of accepted transaction sets in the order of the
// file, reading src, the file's content, from its start. A member that is
// rejected by itself is yielded with its problems. An error ends it.
func (f *EnrollmentFile) Members(src io.Reader) iter.Seq2[*Member, error] {
	return func(yield func(*Member, error) bool) {
		scratch := &File{limits: Limits{Problems: 1}.withDefaults()}
		rd := newReader(scratch, newTokenizer(src, 0, delimiters{}, f.file.limits), memberFiles)
		next, stopped := 0, false
		rd.members = func(o *openMember) bool {
			if rd.setIndex >= len(f.file.sets) {
				return false
			}
			if f.file.sets[rd.setIndex].Rejected {
				return true
			}
			m := &Member{Ordinal: next, PayerID: o.payer, SponsorID: o.sponsor, Changes: o.changes}
			path, ins := rd.path(), Fault{Segment: "INS", Loop: "2000", Ordinal: o.ordinal}
			m.X12Path = path + " / " + ins.place()
			for i := range o.faults {
				m.Problems = append(m.Problems, o.faults[i].problem(path))
			}
			next++
			stopped = !yield(m, nil)
			return !stopped && next < f.MemberCount
		}
		if err := rd.run(); err != nil && !stopped {
			yield(nil, err)
		} else if next < f.MemberCount && !stopped {
			yield(nil, io.ErrUnexpectedEOF)
		}
	}
}

// Sent is when the sender says the first interchange was made (ISA09, ISA10),
// in UTC for want of a zone; zero where that can't be read.
func (f *EnrollmentFile) Sent() time.Time {
	if !f.Enveloped() {
		return time.Time{}
	}
	at, err := time.Parse("060102 1504", f.file.Interchanges[0].Date+" "+f.file.Interchanges[0].Time)
	if err != nil {
		return time.Time{}
	}
	return at
}
