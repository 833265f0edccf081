// Package sample is a small synthetic payer with its members and a file of
// claims: what a new installation shows itself with, and an oracle for tests.
// Every person, provider and number in it is invented.
package sample

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/policies"
)

//go:embed data
var data embed.FS

// PayerID is the sample payer's: NM109 of loop 2010BB.
const PayerID = "KEYSTONE"

// LegacyPayers are the payer ids that widely published 837P examples of the
// years 2004 to 2006 are sent to. Each gets a plain plan without members, so
// that such a file is decided rather than refused: PR-31, nobody is enrolled.
func LegacyPayers() []string {
	return []string{"05440", "12345", "123245", "741234", "999996666", "C12345", "PLANID12345"}
}

// ClaimsFile returns a 005010X222A1 professional claims file of fifteen
// claims from January and February 2026; Outcomes says what becomes of each.
func ClaimsFile() []byte {
	return embedded("data/claims.edi")
}

// PairTable and UnitTable are synthetic tables of claim edits in CMS's
// layouts: procedure-to-procedure pairs (tab separated) and medically unlikely
// edits (CSV), both of practitioner services. Load imports neither.
func PairTable() []byte { return embedded("data/edits/ptp_practitioner_2026q1.txt") }

// UnitTable is the other of the two, see PairTable.
func UnitTable() []byte { return embedded("data/edits/mue_practitioner_2026q1.csv") }

func embedded(name string) []byte {
	b, err := data.ReadFile(name)
	if err != nil {
		panic(err) // embedded: absent only in a broken build
	}
	return b
}

// Summary counts what Load found or made.
type Summary struct {
	FeeSchedules   int
	Plans          int
	Contracts      int
	Policies       int
	Members        int
	AlreadyThere   int // of Members
	Authorizations int
	// Token names every commit above, comma separated: a book that has waited
	// for it (book.Book.WaitFor) can decide the sample's claims.
	Token string
}

// Load publishes the sample in the order its parts refer to each other. It
// may be repeated, also after it stopped half way: request ids are made from
// the content, so what is there already is found and not made again.
func Load(ctx context.Context, client policiesv1connect.PoliciesServiceClient) (Summary, error) {
	set, err := read()
	if err != nil {
		return Summary{}, err
	}
	return set.load(ctx, client)
}

// set is the sample as read.
type set struct {
	feeSchedules   []*policiesv1.FeeSchedule
	plans          []*policiesv1.PlanDocument
	contracts      []*policiesv1.ProviderContract
	policies       []*policiesv1.Policy
	members        *policiesv1.EnrollMembersRequest
	authorizations []*policiesv1.PriorAuthorization
}

func read() (set, error) {
	s := set{members: &policiesv1.EnrollMembersRequest{}}
	err := firstOf(
		each("data/fee_schedules", &s.feeSchedules),
		each("data/plans", &s.plans),
		each("data/contracts", &s.contracts),
		each("data/policies", &s.policies),
		each("data/authorizations", &s.authorizations),
		one("data/members.yaml", s.members),
	)
	if err != nil {
		return set{}, err
	}
	schedule, plan := &policiesv1.FeeSchedule{}, &policiesv1.PlanDocument{}
	if err := firstOf(one("data/legacy/fee_schedule.yaml", schedule), one("data/legacy/plan.yaml", plan)); err != nil {
		return set{}, err
	}
	for _, payer := range LegacyPayers() {
		f, p := proto.CloneOf(schedule), proto.CloneOf(plan)
		f.PayerId, p.PayerId = payer, payer
		f.FeeScheduleId += "_" + strings.ToLower(payer)
		p.PlanId, p.FeeScheduleId = p.GetPlanId()+"_"+strings.ToLower(payer), f.GetFeeScheduleId()
		s.feeSchedules, s.plans = append(s.feeSchedules, f), append(s.plans, p)
	}
	return s, nil
}

func firstOf(errs ...error) error {
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

func one(name string, into proto.Message) error {
	text, err := data.ReadFile(name)
	if err == nil {
		err = policies.Read(text, into)
	}
	if err != nil {
		return fmt.Errorf("sample: %s: %w", name, err)
	}
	return nil
}

// each reads every file of a folder, in order of name.
func each[M proto.Message](folder string, into *[]M) error {
	var m M
	return fs.WalkDir(data, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		doc := m.ProtoReflect().New().Interface().(M)
		*into = append(*into, doc)
		return one(name, doc)
	})
}

func (s set) load(ctx context.Context, client policiesv1connect.PoliciesServiceClient) (Summary, error) {
	var sum Summary
	for _, d := range s.feeSchedules {
		answer, err := client.PublishFeeSchedule(ctx, &policiesv1.PublishFeeScheduleRequest{RequestId: requestID(d), FeeSchedule: d})
		if err != nil {
			return sum, fmt.Errorf("sample: publish fee schedule %s: %w", d.GetFeeScheduleId(), err)
		}
		sum.cover(answer.GetToken())
		sum.FeeSchedules++
	}
	for _, d := range s.plans {
		answer, err := client.PublishPlan(ctx, &policiesv1.PublishPlanRequest{RequestId: requestID(d), Plan: d})
		if err != nil {
			return sum, fmt.Errorf("sample: publish plan %s: %w", d.GetPlanId(), err)
		}
		sum.cover(answer.GetToken())
		sum.Plans++
	}
	for _, d := range s.contracts {
		answer, err := client.PublishContract(ctx, &policiesv1.PublishContractRequest{RequestId: requestID(d), Contract: d})
		if err != nil {
			return sum, fmt.Errorf("sample: publish contract %s: %w", d.GetContractId(), err)
		}
		sum.cover(answer.GetToken())
		sum.Contracts++
	}
	for _, d := range s.policies {
		answer, err := client.CreatePolicy(ctx, &policiesv1.CreatePolicyRequest{RequestId: requestID(d), Policy: d})
		if err != nil {
			return sum, fmt.Errorf("sample: create policy %s: %w", d.GetPolicyId(), err)
		}
		sum.cover(answer.GetToken())
		sum.Policies++
	}
	if err := s.enrol(ctx, client, &sum); err != nil {
		return sum, err
	}
	for i, d := range s.authorizations {
		answer, err := client.RecordPriorAuthorization(ctx, &policiesv1.RecordPriorAuthorizationRequest{RequestId: requestID(d), Authorization: d})
		if err != nil {
			return sum, fmt.Errorf("sample: record prior authorisation %d: %w", i+1, err)
		}
		sum.cover(answer.GetToken())
		sum.Authorizations++
	}
	return sum, nil
}

func (s set) enrol(ctx context.Context, client policiesv1connect.PoliciesServiceClient, sum *Summary) error {
	answer, err := client.EnrollMembers(ctx, &policiesv1.EnrollMembersRequest{
		RequestId: requestID(s.members), Enrollments: s.members.GetEnrollments(),
	})
	if err != nil {
		return fmt.Errorf("sample: enrol members: %w", err)
	}
	for i, r := range answer.GetResults() {
		if p := r.GetProblems(); len(p) > 0 {
			return fmt.Errorf("sample: enrol member %d: %s (%s)", i+1, p[0].GetMessage(), p[0].GetRuleId())
		}
		sum.Members++
		if r.GetUnchanged() {
			sum.AlreadyThere++
		}
	}
	sum.cover(answer.GetToken())
	return nil
}

// cover adds a token, or several joined, to those that Token names.
func (s *Summary) cover(token string) {
	have := strings.Split(s.Token, ",")
	for one := range strings.SplitSeq(token, ",") {
		if one != "" && !slices.Contains(have, one) {
			have = append(have, one)
		}
	}
	s.Token = strings.TrimPrefix(strings.Join(have, ","), ",")
}

// requestID is made from the content: repeated loads are one request, and a
// sample that was edited is another.
func requestID(m proto.Message) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // the sample is valid UTF-8: Read saw to it
	}
	digest := sha256.Sum256(b)
	return "sample-" + hex.EncodeToString(digest[:12])
}
