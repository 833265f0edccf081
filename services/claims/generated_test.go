package claims

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"

	"github.com/probity-health/probity/e2e/naive"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/generate"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
)

// On two thousand generated claims the engine and a second model, which
// shares nothing with it, agree to the cent: status, allowed, paid, patient's
// share and every adjustment of every line. Then every decision is made anew
// from the ledger and is the same.
func TestTheEngineAgreesWithTheNaiveModelToTheCent(t *testing.T) {
	reasons := map[string]int{}
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { agree(t, seed, 700, reasons) })
	}
	for _, r := range []string{"CO-59", "CO-197", "OA-23", "CO-151", "CO-97", "CO-231", "CO-236", "CO-16", "CO-242", "PR-96"} {
		require.Positive(t, reasons[r], "%s is never given: the two would agree on nothing", r)
	}
}

func agree(t *testing.T, seed uint64, claims int, reasons map[string]int) {
	w := newWorld(t, 0)
	g, err := generate.New(generate.Options{Seed: seed, Claims: claims, AsOf: noon})
	require.NoError(t, err)
	w.publishGenerated(g)

	model := naiveModel(t, g)
	var files [2]bytes.Buffer
	writers := [2]*generate.Writer{g.NewWriter(&files[0], "P"), g.NewWriter(&files[1], "I")}
	expected, kinds := map[string]naive.Outcome{}, map[string]string{}
	for f := range g.Families() {
		for _, e := range f.Enrollments {
			require.NoError(t, model.Add(generate.JSON(e)))
		}
		for _, a := range f.Authorizations {
			require.NoError(t, model.Add(generate.JSON(a)))
		}
		for k, list := range [][]generate.Claim{f.Professional, f.Institutional} {
			for i := range list {
				text, err := json.Marshal(&list[i])
				require.NoError(t, err)
				o, err := model.Decide(text)
				require.NoError(t, err)
				expected[list[i].ID], kinds[list[i].ID] = o, list[i].Kind
				require.NoError(t, writers[k].Claim(&list[i]))
			}
		}
	}
	statuses := map[string]int{}
	for _, o := range expected {
		for _, l := range o.Lines {
			for _, a := range l.Adjustments {
				reasons[a.Group+"-"+a.CARC]++
			}
		}
	}
	differ := 0
	for k := range files {
		require.NoError(t, writers[k].Close())
		file, err := x12.ParseFile(bytes.NewReader(files[k].Bytes()), x12.Limits{})
		require.NoError(t, err)
		var batch []*claimsv1.SubmitClaimRequest
		for c, err := range file.Claims(bytes.NewReader(files[k].Bytes()), 0, file.ClaimCount) {
			require.NoError(t, err)
			if len(c.Problems) > 0 {
				require.Equal(t, "rejected", expected[c.Claim.GetPatientControlNumber()].Status, "%v", c.Problems)
				statuses["rejected"]++
				continue
			}
			batch = append(batch, &claimsv1.SubmitClaimRequest{RequestId: c.Claim.GetPatientControlNumber(), Claim: c.Claim})
		}
		for part := range slices.Chunk(batch, 250) {
			res, err := w.SubmitClaims(lakeside(), &claimsv1.SubmitClaimsRequest{Claims: part})
			require.NoError(t, err)
			for i, r := range res.GetResults() {
				require.Empty(t, r.GetProblems())
				id := part[i].GetRequestId()
				statuses[expected[id].Status]++
				if got, want := lineMoney(r.GetDecision()), naiveMoney(expected[id]); got != want {
					if differ++; differ <= 5 {
						t.Errorf("%s (%s):\nengine %s\nnaive  %s", id, kinds[id], got, want)
					}
				}
			}
		}
	}
	require.Zero(t, differ, "of %d claims so many differ", claims)
	t.Log(statuses, reasons)
	require.GreaterOrEqual(t, claims-statuses["pended"], claims*95/100, "at least 95 % are decided without a person")

	_, end := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{})
	require.Equal(t, uint64(claims-statuses["rejected"]), end.GetIdentical())
	require.Equal(t, end.GetDecisions(), end.GetIdentical())
}

// naiveModel knows what the world publishes.
func naiveModel(t *testing.T, g *generate.World) *naive.Model {
	t.Helper()
	model := naive.New(g.AsOf().Format("2006-01-02"))
	for _, d := range g.Documents().All() {
		require.NoError(t, model.Add(generate.JSON(d)))
	}
	for _, table := range g.Documents().Edits {
		require.NoError(t, model.AddTable(table.Name(), table.From(), table.Text))
	}
	return model
}

// lineMoney writes a decision's money in one form.
func lineMoney(d *claimsv1.Decision) string {
	out := fmt.Sprintf("%s allowed %d paid %d patient %d", statusWord(d.GetStatus()), d.GetAllowedCents(), d.GetPaidCents(), d.GetPatientCents())
	for _, l := range d.GetLines() {
		var adjustments []naive.Adjustment
		for _, a := range l.GetAdjustments() {
			adjustments = append(adjustments, naive.Adjustment{Group: a.GetGroupCode(), CARC: a.GetCarc(), Amount: a.GetAmountCents()})
		}
		out += moneyLine(int(l.GetNumber()), l.GetAllowedCents(), l.GetPaidCents(), l.GetPatientCents(), adjustments)
	}
	return out
}

func naiveMoney(o naive.Outcome) string {
	out := fmt.Sprintf("%s allowed %d paid %d patient %d", o.Status, o.Allowed, o.Paid, o.Patient)
	for _, l := range o.Lines {
		out += moneyLine(l.Number, l.Allowed, l.Paid, l.Patient, l.Adjustments)
	}
	return out
}

func moneyLine(number int, allowed, paid, patient int64, adjustments []naive.Adjustment) string {
	adjustments = slices.Clone(adjustments)
	slices.SortFunc(adjustments, func(a, b naive.Adjustment) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.CARC, b.CARC))
	})
	return fmt.Sprintf("\n\tline %d allowed %d paid %d patient %d %v", number, allowed, paid, patient, adjustments)
}

// Then some claims are replaced and some voided. What stands of each family
// afterwards is, to the cent, what the naive model makes of its claims filed
// anew in their order without the originals.
func TestCorrectedFamiliesStandAsIfFiledAnew(t *testing.T) {
	w := newWorld(t, 0)
	mix := generate.DefaultMix()
	mix.Replaced, mix.Voided, mix.LateReplaced, mix.Suspected, mix.Review, mix.Terminated = 140, 90, 40, 0, 0, 0
	g, err := generate.New(generate.Options{Seed: 5, Claims: 300, AsOf: noon, Mix: mix})
	require.NoError(t, err)
	w.publishGenerated(g)
	model := naiveModel(t, g)
	compared, kinds := 0, map[string]int{}
	for f := range g.Families() {
		for _, e := range f.Enrollments {
			require.NoError(t, model.Add(generate.JSON(e)))
		}
		for _, a := range f.Authorizations {
			require.NoError(t, model.Add(generate.JSON(a)))
		}
		filed, ids := w.fileOneByOne(g, f.Professional, f.Institutional), map[string]string{}
		expected, pended := map[string]naive.Outcome{}, false
		for _, c := range append(slices.Clone(f.Professional), f.Institutional...) {
			o, err := model.Decide(w.json(&c))
			require.NoError(t, err)
			pended = pended || o.Status == "pended"
			if r := filed[c.ID]; r != nil {
				expected[c.ID], ids[c.ID] = o, r.GetClaim().GetClaimId()
			}
		}
		if len(f.Corrections) == 0 || pended {
			continue
		}
		for _, c := range f.Corrections {
			text := w.json(&c) // with its own number for the original
			own := c.Original
			c.Original = ids[own]
			answer := w.fileOneByOne(g, only(c, "P"), only(c, "I"))[c.ID]
			require.Empty(t, answer.GetProblems(), "%s of %s", c.Kind, own)
			expected, err = model.Correct(text)
			require.NoError(t, err)
			ids[c.ID] = answer.GetClaim().GetClaimId()
			kinds[c.Kind]++
		}
		// A replacement that would now wait for a person, say because a
		// duplicate of its original stands in the original's place, is decided
		// before the family is settled: then the order is another.
		if slices.ContainsFunc(slices.Collect(maps.Values(expected)), func(o naive.Outcome) bool { return o.Status == "pended" }) {
			continue
		}
		compared++
		for id, o := range expected {
			state := w.claim(ids[id])
			decision, err := w.openDecision(service(), state)
			require.NoError(t, err)
			require.Equal(t, naiveMoney(o), lineMoney(decision), "%s, after %d corrections", id, len(f.Corrections))
		}
	}
	require.Greater(t, kinds["replacement"], 20)
	require.Greater(t, kinds["void"], 10)
	require.Greater(t, kinds["late replacement"], 4)
	require.Greater(t, compared, 25)
	_, end := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{KeepGoing: true})
	require.Equal(t, end.GetDecisions(), end.GetIdentical())
}

// only is a list of the claim when it is of that form.
func only(c generate.Claim, form string) []generate.Claim {
	if c.Form != form {
		return nil
	}
	return []generate.Claim{c}
}

func (w *world) json(c *generate.Claim) []byte {
	text, err := json.Marshal(c)
	require.NoError(w.t, err)
	return text
}

// fileOneByOne submits claims in order; those that the reader rejects have no answer.
func (w *world) fileOneByOne(g *generate.World, lists ...[]generate.Claim) map[string]*claimsv1.SubmitClaimResponse {
	w.t.Helper()
	out := map[string]*claimsv1.SubmitClaimResponse{}
	for k, list := range lists {
		if len(list) == 0 {
			continue
		}
		var file bytes.Buffer
		writer := g.NewWriter(&file, []string{"P", "I"}[k])
		for i := range list {
			require.NoError(w.t, writer.Claim(&list[i]))
		}
		require.NoError(w.t, writer.Close())
		parsed, err := x12.ParseFile(bytes.NewReader(file.Bytes()), x12.Limits{})
		require.NoError(w.t, err)
		for c, err := range parsed.Claims(bytes.NewReader(file.Bytes()), 0, parsed.ClaimCount) {
			require.NoError(w.t, err)
			if len(c.Problems) == 0 {
				out[c.Claim.GetPatientControlNumber()] = w.submit(lakeside(), c.Claim.GetPatientControlNumber(), c.Claim)
			}
		}
	}
	return out
}

// publishGenerated makes a generated payer known and returns its policies service.
func (w *world) publishGenerated(g *generate.World) *policies.Handler {
	w.t.Helper()
	directory := book.New()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	go func() { _ = directory.Run(ctx, w.store) }()
	handler := policies.NewHandler(policies.Deps{Store: w.store, Directory: directory, Sealer: w.sealer, Index: w.index, Authorizer: w.auth})
	who, _ := identity.FromContext(service())
	_, edits := policiesv1connect.NewEditsServiceHandler(handler) // streams: these need a connection
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		edits.ServeHTTP(out, in.WithContext(identity.WithPrincipal(in.Context(), who)))
	}))
	defer server.Close()
	require.NoError(w.t, g.Publish(service(), generate.Payer{Policies: handler, Edits: policiesv1connect.NewEditsServiceClient(server.Client(), server.URL)}, nil))
	w.caughtUp(w.Service)
	return handler
}

// Then the sponsor ends coverages before services that were paid. Nobody names
// a claim: the service finds them, and each family stands as if its claims had
// come after the news.
func TestTerminatedFamiliesStandAsIfFiledAnew(t *testing.T) {
	w := newWorld(t, 0, automatic)
	mix := generate.DefaultMix()
	mix.Terminated, mix.Suspected, mix.Review, mix.SameDay = 600, 0, 0, 0
	g, err := generate.New(generate.Options{Seed: 9, Claims: 250, AsOf: noon, Mix: mix})
	require.NoError(t, err)
	handler := w.publishGenerated(g)
	model := naiveModel(t, g)
	expected, ids, taken := map[string]naive.Outcome{}, map[string]string{}, 0
	for f := range g.Families() {
		for _, e := range f.Enrollments {
			require.NoError(t, model.Add(generate.JSON(e)))
		}
		for _, a := range f.Authorizations {
			require.NoError(t, model.Add(generate.JSON(a)))
		}
		filed := w.fileOneByOne(g, f.Professional, f.Institutional)
		stands := map[string]naive.Outcome{}
		for _, c := range append(slices.Clone(f.Professional), f.Institutional...) {
			o, err := model.Decide(w.json(&c))
			require.NoError(t, err)
			if r := filed[c.ID]; r != nil && c.Kind != "unknown member" {
				stands[c.ID], ids[c.ID] = o, r.GetClaim().GetClaimId()
			}
		}
		for _, end := range f.Terminations {
			found, err := handler.LookupMember(service(), &policiesv1.LookupMemberRequest{PayerId: generate.PayerID, MemberId: end.MemberID, BirthDate: end.Person.Birth})
			require.NoError(t, err)
			_, err = handler.TerminateMember(service(), &policiesv1.TerminateMemberRequest{RequestId: "end-" + end.MemberID, Subject: found.GetSubject(), EndDate: end.End})
			require.NoError(t, err)
			after, err := model.Terminate(end.MemberID, end.Person.Birth, end.Person.First, end.End)
			require.NoError(t, err)
			for id, o := range after {
				if was := stands[id]; was.Paid > 0 && o.Paid == 0 {
					taken++
				}
				stands[id] = o
			}
		}
		maps.Copy(expected, stands)
	}
	w.followed()
	for id, o := range expected {
		decision, err := w.openDecision(service(), w.claim(ids[id]))
		require.NoError(t, err)
		require.Equal(t, naiveMoney(o), lineMoney(decision), id)
	}
	require.Greater(t, taken, 20, "payments are taken back")
	_, end := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{KeepGoing: true})
	require.Equal(t, end.GetDecisions(), end.GetIdentical())
}
