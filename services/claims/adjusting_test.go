package claims

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
)

const reversed = claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED

// replaces and voids make a claim one that is about an earlier one.
func replaces(id string) func(*claimsv1.Claim) {
	return func(c *claimsv1.Claim) { c.FrequencyCode, c.OriginalClaimNumber = "7", id }
}

func voids(id string) func(*claimsv1.Claim) {
	return func(c *claimsv1.Claim) { c.FrequencyCode, c.OriginalClaimNumber = "8", id }
}

func (w *world) claim(id string) State {
	w.t.Helper()
	state, _, err := w.readClaim(service(), id, eventstore.NoStream)
	require.NoError(w.t, err)
	return state
}

// used is a family's individual deductible of the first member and its out-of-pocket sum.
func (w *world) used(family int) (deductible, outOfPocket int64) {
	sums, _ := w.sums(family)
	for k, v := range sums {
		if k.Scope == adjudication.Family && k.Kind == adjudication.Deductible {
			deductible += v
		}
		if k.Scope == adjudication.Family && k.Kind == adjudication.OutOfPocket {
			outOfPocket += v
		}
	}
	return deductible, outOfPocket
}

func TestAVoidTakesItsOriginalBackInFull(t *testing.T) {
	w := newWorld(t, 1)
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10"))
	deductible, _ := w.used(0)
	require.EqualValues(t, 10000, deductible)

	res := w.submit(lakeside(), "r2", visit(0, "2026-02-10", voids(first.Claim.ClaimId)))

	require.Equal(t, "reversed", statusOf(res))
	require.Equal(t, reversed, w.claim(first.Claim.ClaimId).Status())
	require.Zero(t, w.claim(first.Claim.ClaimId).Summary().GetPatientCents())
	deductible, outOfPocket := w.used(0)
	require.Zero(t, deductible)
	require.Zero(t, outOfPocket)
	t.Run("in one commit", func(t *testing.T) {
		at := w.claim(res.Claim.ClaimId).DecidedAt
		var kinds []string
		for _, r := range w.events() {
			if r.Position == at {
				kinds = append(kinds, string(r.Event.ProtoReflect().Descriptor().Name()))
			}
		}
		require.ElementsMatch(t, []string{"ClaimReceived", "ClaimDecided", "ClaimReversed", "AccumulatorsPosted"}, kinds)
	})
	t.Run("and the service may be billed again: what was voided is no duplicate", func(t *testing.T) {
		again := w.submit(lakeside(), "r3", visit(0, "2026-02-10"))
		require.Equal(t, "paid", statusOf(again))
		require.Empty(t, again.Claim.DuplicateOf)
	})
	t.Run("once", func(t *testing.T) {
		before := len(w.events())
		same := w.submit(lakeside(), "r2", visit(0, "2026-02-10", voids(first.Claim.ClaimId)))
		require.True(t, same.Replayed)
		require.True(t, proto.Equal(res.Claim, same.Claim))
		require.Len(t, w.events(), before)
	})
}

func TestAReplacementTakesItsOriginalBackAndIsDecidedAnew(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01")) // meets the deductible
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10"))
	require.EqualValues(t, 8000, first.Claim.PaidCents)

	// the sender corrects the procedure and, of course, keeps the day
	res := w.submit(lakeside(), "r2", visit(0, "2026-02-10", charged(9000), replaces(strings.ToUpper(first.Claim.ClaimId))))

	require.Equal(t, "paid", statusOf(res))
	require.EqualValues(t, 7200, res.Claim.PaidCents, "80 % of $90.00")
	require.Empty(t, res.Claim.DuplicateOf, "its original is not its duplicate")
	require.Equal(t, first.Claim.ClaimId, res.Decision.Versions.OriginalClaimId)
	was := w.claim(first.Claim.ClaimId)
	require.Equal(t, reversed, was.Status())
	require.Equal(t, res.Claim.ClaimId, was.Reversed.GetByClaimId())
	require.EqualValues(t, 8000, was.Reversed.GetPaidCents())
	_, outOfPocket := w.used(0)
	require.EqualValues(t, 10000+1800, outOfPocket)
	require.Contains(t, Timeline(w.stream(first.Claim.ClaimId))[2].Text, "Reversed $80.00: replaced by claim "+res.Claim.ClaimId)

	t.Run("a chain goes on from the last of it", func(t *testing.T) {
		next := w.submit(lakeside(), "r3", visit(0, "2026-02-10", charged(8000), replaces(res.Claim.ClaimId)))
		require.EqualValues(t, 6400, next.Claim.PaidCents)
		_, outOfPocket := w.used(0)
		require.EqualValues(t, 10000+1600, outOfPocket)
		gone := w.submit(lakeside(), "r4", visit(0, "2026-02-10", voids(next.Claim.ClaimId)))
		require.Equal(t, "reversed", statusOf(gone))
		_, outOfPocket = w.used(0)
		require.EqualValues(t, 10000, outOfPocket)
	})
}

func (w *world) stream(id string) []eventstore.Recorded {
	w.t.Helper()
	_, events, err := w.readClaim(service(), id, eventstore.NoStream)
	require.NoError(w.t, err)
	return events
}

// A correction that comes after the filing limit is denied and takes nothing
// back: what was decided in time stands, to be corrected by nobody.
func TestALateReplacementLeavesItsOriginalAsItStands(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01")) // meets the deductible
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	w.mu.Lock()
	w.now = noon.AddDate(0, 0, 90)
	w.mu.Unlock()

	res := w.submit(lakeside(), "r2", visit(0, "2026-02-10", charged(9000), replaces(first)))

	require.Equal(t, "denied", statusOf(res))
	require.Equal(t, []string{"CO-29"}, res.Claim.Codes)
	require.True(t, res.Decision.Versions.OriginalStands)
	require.Equal(t, paid, w.claim(first).Status())
	require.EqualValues(t, 8000, w.claim(first).Decided.GetPaidCents())
	_, outOfPocket := w.used(0)
	require.EqualValues(t, 12000, outOfPocket, "the deductible and 20 %, as before")
	require.Contains(t, Timeline(w.stream(res.Claim.ClaimId))[1].Text, "too late to replace "+first)
	inOrder(t, w, 0)
	replayed(t, w)

	t.Run("the next claim is decided on the family as it was", func(t *testing.T) {
		again := w.submit(lakeside(), "r3", visit(0, "2026-02-10"))
		require.Equal(t, []string{"CO-29"}, again.Claim.Codes)
		next := w.submit(lakeside(), "r4", visit(0, "2026-05-20"))
		require.EqualValues(t, 8000, next.Claim.PaidCents)
		inOrder(t, w, 0)
	})
	t.Run("and its own number replaces nothing", func(t *testing.T) {
		refused := w.submit(lakeside(), "r5", visit(0, "2026-02-10", replaces(res.Claim.ClaimId)))
		require.Equal(t, "claims.original.late", refused.Problems[0].RuleId)
		require.Contains(t, refused.Problems[0].Fix, first)
	})
	t.Run("a longer limit afterwards asks a person", func(t *testing.T) {
		longer := dearerPlan(10000)
		longer.TimelyFilingDays = 365
		w.publishVersion(2, longer)
		w.caughtUp(w.Service)
		got, err := w.ReprocessClaims(planAdmin(), reprocess("p1", res.Claim.ClaimId))
		require.NoError(t, err)
		require.Empty(t, got.GetCorrections())
		require.Len(t, got.GetWaiting(), 1)
		require.Equal(t, paid, w.claim(first).Status())
	})
}

// Whatever can't be adjusted is refused, says why, and changes nothing but the
// trace of the refusal.
func TestWhatCannotBeAdjustedIsRefused(t *testing.T) {
	w := newWorld(t, 3)
	mine := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	theirs := w.submit(otherOrg(), "r1", visit(0, "2026-02-11")).Claim.ClaimId
	neighbours := w.submit(lakeside(), "r2", visit(1, "2026-02-10")).Claim.ClaimId
	replaced := w.submit(lakeside(), "r3", visit(0, "2026-02-12")).Claim.ClaimId
	successor := w.submit(lakeside(), "r4", visit(0, "2026-02-12", charged(14000), replaces(replaced))).Claim.ClaimId
	voided := w.submit(lakeside(), "r5", visit(0, "2026-02-13")).Claim.ClaimId
	void := w.submit(lakeside(), "r6", visit(0, "2026-02-13", voids(voided))).Claim.ClaimId
	for _, c := range []struct {
		name, original, rule, fix string
		change                    func(*claimsv1.Claim)
	}{
		{"unknown", "clm_bbbbbbbbbbbbbbbbbbbbbbbbbb", "claims.original.unknown", "REF*F8", nil},
		{"not a claim number of ours", "2026-0001", "claims.original.unknown", "", nil},
		{"another sender's", theirs, "claims.original.unknown", "", nil},
		{"another family's", neighbours, "claims.original.unknown", "", nil},
		{"another patient's", mine, "claims.original.patient", "", spouse},
		{"another biller's", mine, "claims.original.provider", "", billedBy(otherBiller)},
		{"replaced before", replaced, "claims.original.reversed", successor, nil},
		{"voided before", voided, "claims.original.reversed", "send a new claim", nil},
		{"a void", void, "claims.original.void", "", nil},
	} {
		for frequency, about := range map[string]func(string) func(*claimsv1.Claim){"7": replaces, "8": voids} {
			t.Run(c.name+" by "+frequency, func(t *testing.T) {
				before := w.events()
				claim := visit(0, "2026-02-10", about(c.original))
				if c.change != nil {
					c.change(claim)
				}
				res := w.submit(lakeside(), c.name+frequency, claim)
				require.Equal(t, "rejected", statusOf(res))
				require.Len(t, res.Problems, 1)
				require.Equal(t, c.rule, res.Problems[0].RuleId)
				require.Equal(t, "A7:464", res.Problems[0].Code)
				require.Contains(t, res.Problems[0].Fix, c.fix)
				for _, r := range w.events() {
					// Events come shard by shard: the new ones aren't the last.
					if slices.ContainsFunc(before, func(b eventstore.Recorded) bool { return b.Position == r.Position }) {
						continue
					}
					switch r.Event.(type) {
					case *eventsv1.SubmissionRefused, *eventsv1.SubmissionRouted:
					default:
						t.Errorf("a refused claim left a %T", r.Event)
					}
				}
			})
		}
	}
}

func TestAnAdjustmentOfAPendedClaimWaitsForIt(t *testing.T) {
	for frequency, about := range map[string]func(string) func(*claimsv1.Claim){"7": replaces, "8": voids} {
		t.Run(frequency, func(t *testing.T) {
			w := newWorld(t, 1)
			first := w.submit(lakeside(), "r1", large("2026-02-10")).Claim.ClaimId
			waits := w.submit(lakeside(), "r2", visit(0, "2026-02-10", about(first)))
			require.Equal(t, "pended", statusOf(waits))
			require.Equal(t, "adjustment.replacement", waits.Claim.PendReasons[0].RuleId)
			require.Equal(t, pended, w.claim(first).Status(), "and its original is as it was")

			// approval doesn't help while the original is open
			_, err := w.ResolveClaim(service(), resolve(waits.Claim.ClaimId, "v1", "approve"))
			require.NoError(t, err)
			require.Equal(t, pended, w.claim(waits.Claim.ClaimId).Status())

			_, err = w.ResolveClaim(service(), resolve(first, "v2", "approve"))
			require.NoError(t, err)
			done, err := w.ResolveClaim(service(), resolve(waits.Claim.ClaimId, "v3", "approve"))
			require.NoError(t, err)
			require.Equal(t, reversed, w.claim(first).Status())
			deductible, _ := w.used(0)
			if frequency == "7" {
				require.Equal(t, paid, done.Claim.Status)
				require.EqualValues(t, 10000, deductible)
			} else {
				require.Equal(t, reversed, done.Claim.Status)
				require.Zero(t, deductible)
			}
		})
	}
}

func TestADeniedVoidLeavesItsOriginalAlone(t *testing.T) {
	w := newWorld(t, 1)
	first := w.submit(lakeside(), "r1", large("2026-02-10")).Claim.ClaimId
	waits := w.submit(lakeside(), "r2", visit(0, "2026-02-10", voids(first))).Claim.ClaimId
	_, err := w.ResolveClaim(service(), resolve(first, "v1", "approve"))
	require.NoError(t, err)

	res, err := w.ResolveClaim(service(), resolve(waits, "v2", "deny"))

	require.NoError(t, err)
	require.Equal(t, denied, res.Claim.Status)
	require.Equal(t, paid, w.claim(first).Status())
}

// A replacement that a person must look at leaves its original standing until
// it is decided; then both go in one commit.
func TestAPendedReplacementLeavesItsOriginalStanding(t *testing.T) {
	w := newWorld(t, 1)
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	waits := w.submit(lakeside(), "r2", visit(0, "2026-02-10", charged(600000), replaces(first)))
	require.Equal(t, "pended", statusOf(waits))
	require.Equal(t, "review.threshold", waits.Claim.PendReasons[0].RuleId, "it isn't taken for a duplicate of what it replaces")
	require.Equal(t, paid, w.claim(first).Status())

	res, err := w.ResolveClaim(service(), resolve(waits.Claim.ClaimId, "v1", "approve"))

	require.NoError(t, err)
	require.Equal(t, paid, res.Claim.Status)
	require.Equal(t, reversed, w.claim(first).Status())
	deductible, _ := w.used(0)
	require.EqualValues(t, 10000, deductible)

	t.Run("unless another took its original meanwhile", func(t *testing.T) {
		late := w.submit(lakeside(), "r3", visit(0, "2026-02-10", charged(600000), replaces(waits.Claim.ClaimId)))
		require.Equal(t, "pended", statusOf(late))
		w.submit(lakeside(), "r4", visit(0, "2026-02-10", voids(waits.Claim.ClaimId)))
		_, err := w.ResolveClaim(service(), resolve(late.Claim.ClaimId, "v1", "approve"))
		require.ErrorContains(t, err, "claims.original.reversed")
		_, err = w.ResolveClaim(service(), resolve(late.Claim.ClaimId, "v1", "deny"))
		require.NoError(t, err)
	})
}

// The family's later claims had read what a void gives back: they are decided
// again at their places, in the void's own commit.
func TestAVoidMovesTheClaimsThatReadItsAccumulators(t *testing.T) {
	w := newWorld(t, 1)
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId // takes the deductible
	second := w.submit(lakeside(), "r2", visit(0, "2026-02-11")).Claim.ClaimId
	third := w.submit(lakeside(), "r3", visit(0, "2026-02-12")).Claim.ClaimId
	repeat := w.submit(lakeside(), "r4", visit(0, "2026-02-10")).Claim // a duplicate of the first
	require.Equal(t, denied, repeat.Status)
	require.EqualValues(t, 8000, w.claim(second).Summary().GetPaidCents())

	void := w.submit(lakeside(), "r5", visit(0, "2026-02-10", voids(first)))

	moved := w.claim(second)
	require.Zero(t, moved.Summary().GetPaidCents(), "now the second meets the deductible")
	require.EqualValues(t, 10000, moved.Summary().GetPatientCents())
	require.Len(t, moved.Corrections, 1)
	require.Equal(t, eventsv1.ReversalReason_REVERSAL_REASON_ACCUMULATORS_MOVED, moved.Corrections[0].GetReason())
	require.Equal(t, w.claim(void.Claim.ClaimId).DecidedAt, moved.DecidedAt, "in one commit")
	require.Empty(t, w.claim(third).Corrections, "the third pays as before, and is left alone")
	now := w.claim(repeat.ClaimId).Summary()
	require.Equal(t, paid, now.GetStatus(), "what repeated the voided claim repeats nothing")
	require.EqualValues(t, 8000, now.GetPaidCents())
	deductible, outOfPocket := w.used(0)
	require.EqualValues(t, 10000, deductible)
	require.EqualValues(t, 10000+2000+2000, outOfPocket)
	replayed(t, w)
}

// A family with more claims than one commit can amend is settled over several,
// by the void's own call or, where that breaks off, by whoever comes next;
// nobody is decided on it half way.
func TestALongFamilyIsSettledOverSeveralCommits(t *testing.T) {
	for after := range 5 {
		t.Run(fmt.Sprintf("breaking off at append %d", after), func(t *testing.T) {
			store := &flaky{after: -1, fault: eventstore.FaultRefused}
			w := newWorld(t, 1, func(d *Deps) {
				store.Memory = d.Store.(*eventstore.Memory)
				d.Store = store
				d.Config.AmendClaims = 10
			})
			first := w.submit(lakeside(), "first", visit(0, "2026-01-02")).Claim.ClaimId // takes the deductible
			req := &claimsv1.SubmitClaimsRequest{}
			for i := range 35 {
				// small enough that the deductible would have taken them all
				day := fmt.Sprintf("2026-%02d-%02d", 1+i%2, 3+i/2)
				req.Claims = append(req.Claims, &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprint(i), Claim: visit(0, day, charged(int64(10+i)))})
			}
			res, err := w.SubmitClaims(lakeside(), req)
			require.NoError(t, err)
			for _, r := range res.Results {
				require.NotNil(t, r.Claim, "%v", r.Problems)
			}
			void := &claimsv1.SubmitClaimRequest{RequestId: "void", Claim: visit(0, "2026-01-02", voids(first))}
			store.after = after
			if _, err := w.SubmitClaim(lakeside(), void); err != nil {
				store.after = -1
				_, err = w.SubmitClaim(lakeside(), void)
				require.NoError(t, err)
			}
			store.after = -1
			require.Equal(t, "paid", statusOf(w.submit(lakeside(), "next", visit(0, "2026-02-28", charged(7777)))))

			parts := 0
			for _, r := range w.events() {
				if e, ok := r.Event.(*eventsv1.AccumulatorsPosted); ok && e.GetUnsettledFrom() != "" && e.GetClaimId() == "" {
					parts++
				}
			}
			require.Positive(t, parts, "the story is about more than fits one commit")
			inOrder(t, w, 0)
			if after == 0 {
				replayed(t, w)
			}
		})
	}
}

// inOrder compares a family's accumulators with those of a new world in which
// only the claims that stand were ever sent, in the order of their places.
func inOrder(t require.TestingT, w *world, family int) {
	neverBelowZero(t, w)
	held, err := w.families.hold(service(), w.index.Subscriber(payer, memberID(family)))
	require.NoError(t, err)
	held.value.snapshot = nil
	now, err := w.settleFamily(service(), held, payer)
	w.families.release(held)
	require.NoError(t, err)
	fresh := nothingLedgered()
	for _, c := range now.claims {
		if !c.live {
			continue
		}
		state := w.claim(c.claim)
		sub, err := w.resubmission(service(), state)
		require.NoError(t, err)
		was, err := w.openDecision(service(), state)
		require.NoError(t, err)
		sub.original = was.GetVersions().GetOriginalClaimId()
		d, decision := rule(sub, fresh, state.Review)
		require.Equal(t, state.Decided.GetPaidCents(), decision.GetPaidCents(), "%s", c.claim)
		require.Equal(t, state.Decided.GetStatus(), decision.GetStatus(), "%s: %v, in order %v", c.claim, state.Decided.GetCodes(), codesOf(decision))
		history := historyOf(c.claim, sub.subject, sub.input.Claim, d)
		fresh, err = fresh.post(uint64(fresh.Revision+1), postedEvent(c.claim, sub.subject, decision, history), history)
		require.NoError(t, err)
	}
	require.Equal(t, len(fresh.Sums), len(now.Sums))
	for k, v := range fresh.Sums {
		require.Equal(t, v, now.Sums[k], "%+v", k)
	}
	require.Equal(t, fresh.History, now.History)
}

// replayed makes every decision on the ledger again, as a process does that
// has seen none of them.
func replayed(t *testing.T, w *world) {
	t.Helper()
	told, end := replayAll(auditor(), t, w.start(w.index), &claimsv1.ReplayDecisionsRequest{})
	require.Empty(t, told)
	require.Equal(t, end.GetDecisions(), end.GetIdentical())
}
