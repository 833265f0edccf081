// Package reconcile takes generated claims through a whole stack, as a sender
// would, and holds what comes out against the naive model: the outcome of
// every claim of the files, and every amount and reason of every line of the
// remittances (835), read by a reader of its own.
package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/probity-health/probity/e2e/naive"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/generate"
	"github.com/probity-health/probity/standalone"
)

// Run is what Files and Check work on.
type Run struct {
	World   *generate.World
	Clients standalone.Clients
	// Service signs in as one of the services, who alone may run a cycle; for Adjust.
	Service standalone.Clients
	// Remittance is handed every 835, nil ignores them.
	Remittance func(id string, document []byte) error
	// Progress is told what is being done; nil is told nothing.
	Progress io.Writer
	// Sealed is called once every claim of the professional file is decided in
	// sealed blocks; nil isn't called.
	Sealed func() error

	files    [2][]byte // professional, institutional
	order    [2][]string
	expected map[string]naive.Outcome
	kinds    map[string]string
	ids      map[string]string // the payer's claim numbers
	adjusted adjustments
}

// Result of a run.
type Result struct {
	Claims, Rejected, Paid, Denied, Pended int
	Lines                                  int
	Remittances                            int
	// Cents is the sum of all differences from the naive model: of allowed,
	// paid and patient's share a line, and of whole claims that came out
	// otherwise or not at all.
	Cents int64
	// Reasons is how many lines carry the same money for other reasons.
	Reasons int
	// Told are the first differences in words.
	Told []string
	// Professional file's milestones, counted from its submission.
	Durable, Decided, Sealed, Complete time.Duration
}

// AutoDecided is the share of the claims that were paid or denied without a person.
func (r *Result) AutoDecided() float64 {
	return float64(r.Paid+r.Denied) / float64(r.Claims)
}

const maxTold = 20

func (r *Result) differ(cents int64, format string, args ...any) {
	r.Cents += max(cents, 1)
	r.tell(format, args...)
}

func (r *Result) tell(format string, args ...any) {
	if len(r.Told) < maxTold {
		r.Told = append(r.Told, fmt.Sprintf(format, args...))
	}
}

func (r *Run) say(format string, args ...any) {
	if r.Progress != nil {
		fmt.Fprintf(r.Progress, format+"\n", args...)
	}
}

// Prepare makes the files and what is expected of them, and publishes the world.
func (r *Run) Prepare(ctx context.Context) error {
	model := naive.New(r.World.AsOf().Format(time.DateOnly))
	for _, d := range r.World.Documents().All() {
		if err := model.Add(generate.JSON(d)); err != nil {
			return err
		}
	}
	for _, t := range r.World.Documents().Edits {
		if err := model.AddTable(t.Name(), t.From(), t.Text); err != nil {
			return err
		}
	}
	r.expected, r.kinds = make(map[string]naive.Outcome, r.World.Claims()), make(map[string]string, r.World.Claims())
	r.ids, r.adjusted.after = make(map[string]string, r.World.Claims()), map[string]naive.Outcome{}
	var out [2]bytes.Buffer
	writers := [2]*generate.Writer{r.World.NewWriter(&out[0], "P"), r.World.NewWriter(&out[1], "I")}
	for f := range r.World.Families() {
		if err := r.family(f, model, writers); err != nil {
			return err
		}
	}
	for k := range writers {
		if err := writers[k].Close(); err != nil {
			return err
		}
		r.files[k] = out[k].Bytes()
	}
	r.say("publishing the payer and its members")
	return r.World.Publish(ctx, generate.Payer{Policies: r.Clients.Policies, Edits: r.Clients.Edits}, nil)
}

func (r *Run) family(f *generate.Family, model *naive.Model, writers [2]*generate.Writer) error {
	for _, e := range f.Enrollments {
		if err := model.Add(generate.JSON(e)); err != nil {
			return err
		}
	}
	for _, a := range f.Authorizations {
		if err := model.Add(generate.JSON(a)); err != nil {
			return err
		}
	}
	for k, list := range [][]generate.Claim{f.Professional, f.Institutional} {
		for i := range list {
			text, err := json.Marshal(&list[i])
			if err != nil {
				return err
			}
			o, err := model.Decide(text)
			if err != nil {
				return err
			}
			r.expected[o.ID], r.kinds[o.ID] = o, list[i].Kind
			r.order[k] = append(r.order[k], o.ID)
			if err := writers[k].Claim(&list[i]); err != nil {
				return err
			}
		}
	}
	if err := r.adjust(f, model); err != nil {
		return err
	}
	model.Forget(f.Enrollments[0].GetMemberId())
	return nil
}

// Professional is how many claims the professional file holds.
func (r *Run) Professional() int { return len(r.order[0]) }

// Interchanges are the two files as submitted.
func (r *Run) Interchanges() (professional, institutional []byte) { return r.files[0], r.files[1] }

// Files submits both files, one after the other, and compares. A stack that
// loses a claim, or takes longer than ctx allows, is an error; money that
// differs is told in the result.
func (r *Run) Files(ctx context.Context) (*Result, error) {
	out := &Result{}
	var remittances []string
	for k, file := range r.files {
		if len(r.order[k]) == 0 {
			continue
		}
		ids, err := r.file(ctx, k, file, out)
		if err != nil {
			return nil, err
		}
		remittances = append(remittances, ids...)
	}
	r.say("reading %d remittances", len(remittances))
	advised := make(map[string]bool, len(r.expected))
	for _, id := range remittances {
		document, err := standalone.Document(ctx, r.Clients.Gateway, "835", id)
		if err != nil {
			return nil, fmt.Errorf("reconcile: remittance: %w", err)
		}
		if r.Remittance != nil {
			if err := r.Remittance(id, document); err != nil {
				return nil, err
			}
		}
		out.Remittances++
		advice, err := readAdvice(document)
		if err != nil {
			return nil, fmt.Errorf("reconcile: %s: %w", id, err)
		}
		for _, c := range advice {
			if advised[c.id] {
				out.differ(c.paid, "%s is advised twice", c.id)
			}
			advised[c.id] = true
			r.claim(c, out)
		}
	}
	for id, o := range r.expected {
		if decided := o.Status == "paid" || o.Status == "denied"; decided != advised[id] {
			out.differ(o.Charge, "%s (%s) is %s by the naive model; on a remittance: %v", id, r.kinds[id], o.Status, advised[id])
		}
	}
	return out, nil
}

var statuses = map[claimsv1.ClaimStatus]string{
	claimsv1.ClaimStatus_CLAIM_STATUS_PAID: "paid", claimsv1.ClaimStatus_CLAIM_STATUS_DENIED: "denied",
	claimsv1.ClaimStatus_CLAIM_STATUS_PENDED: "pended", claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED: "rejected",
}

// file submits one file, waits for its end and compares its outcomes.
func (r *Run) file(ctx context.Context, k int, file []byte, out *Result) ([]string, error) {
	r.say("a file of %d claims, %d KiB", len(r.order[k]), len(file)>>10)
	start := time.Now()
	submitted, err := standalone.Submit(ctx, r.Clients.Gateway, file)
	if err != nil {
		return nil, err
	}
	id := submitted.GetFile().GetFileId()
	durable := time.Since(start)
	var sealed func() error
	if k == 0 {
		sealed = r.Sealed
	}
	at, err := r.await(ctx, id, start, len(r.order[k]), sealed)
	if err != nil {
		return nil, err
	}
	got, err := r.Clients.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: id, IncludeOutcomes: true})
	if err != nil {
		return nil, err
	}
	for i, o := range got.GetOutcomes() {
		if int(o.GetOrdinal()) != i || i >= len(r.order[k]) {
			return nil, errors.New("reconcile: the file's outcomes are not in order")
		}
		name := r.order[k][i]
		want, have := r.expected[name], statuses[o.GetStatus()]
		r.ids[name] = o.GetClaimId()
		out.Claims++
		switch have {
		case "paid":
			out.Paid++
		case "denied":
			out.Denied++
		case "pended":
			out.Pended++
		case "rejected":
			out.Rejected++
		}
		if want.Status != have {
			out.differ(want.Charge, "%s (%s) is %s, by the naive model %s", name, r.kinds[name], have, want.Status)
		}
	}
	if len(got.GetOutcomes()) != len(r.order[k]) {
		return nil, fmt.Errorf("reconcile: of %d claims %d have an outcome", len(r.order[k]), len(got.GetOutcomes()))
	}
	if k == 0 {
		out.Durable, out.Decided, out.Sealed, out.Complete = durable, at.decided, at.sealed, at.complete
	}
	return got.GetFile().GetRemittanceIds(), nil
}

// milestones of a file, counted from its submission.
type milestones struct{ decided, sealed, complete time.Duration }

// await follows a file to its end: every claim decided, the decisions in
// sealed blocks, the remittances made. sealed, unless nil, is called in between.
func (r *Run) await(ctx context.Context, id string, start time.Time, claims int, sealed func() error) (at milestones, err error) {
	var open []*ledgerv1.Position // newest decision a shard, not known to be sealed
	for said := time.Now(); at.complete == 0 || at.sealed == 0; {
		p, err := r.Clients.Workflows.GetFileProgress(ctx, &workflowsv1.GetFileProgressRequest{FileId: id})
		if err != nil {
			return at, err
		}
		if at.decided == 0 && int(p.GetDone()) == claims {
			at.decided = time.Since(start)
			r.say("decided after %s", at.decided.Round(time.Millisecond))
			if open, err = r.newest(ctx, id); err != nil {
				return at, err
			}
		}
		if at.decided > 0 && at.sealed == 0 {
			if open = r.unsealed(ctx, open); len(open) == 0 {
				at.sealed = time.Since(start)
				r.say("sealed after %s", at.sealed.Round(time.Millisecond))
				if sealed != nil {
					if err := sealed(); err != nil {
						return at, err
					}
				}
			}
		}
		if at.complete == 0 && p.GetComplete() {
			at.complete = time.Since(start)
		}
		if p.GetStage() == "refused" {
			return at, errors.New("reconcile: the file is refused")
		}
		if time.Since(said) > 5*time.Second {
			r.say("%s: %d of %d claims", p.GetStage(), p.GetDone(), claims)
			said = time.Now()
		}
		select {
		case <-ctx.Done():
			return at, fmt.Errorf("reconcile: the file is %s at %d of %d claims: %w", p.GetStage(), p.GetDone(), claims, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return at, nil
}

// lastClaims of a file are asked for their positions: with several chunks
// under way the newest decisions are among them.
const lastClaims = 64

// newest are the positions of a file's last decisions, the newest a shard.
func (r *Run) newest(ctx context.Context, id string) ([]*ledgerv1.Position, error) {
	got, err := r.Clients.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: id, IncludeOutcomes: true})
	if err != nil {
		return nil, err
	}
	outcomes := got.GetOutcomes()
	byShard := map[uint32]*ledgerv1.Position{}
	for _, o := range outcomes[max(0, len(outcomes)-lastClaims):] {
		if o.GetClaimId() == "" {
			continue
		}
		claim, err := r.Clients.Claims.GetClaim(ctx, &claimsv1.GetClaimRequest{ClaimId: o.GetClaimId()})
		if err != nil {
			return nil, err
		}
		p := claim.GetClaim().GetPosition()
		if have := byShard[p.GetShard()]; have == nil || have.GetIndex() < p.GetIndex() {
			byShard[p.GetShard()] = p
		}
	}
	return slices.Collect(maps.Values(byShard)), nil
}

// unsealed are those positions that have no receipt yet.
func (r *Run) unsealed(ctx context.Context, positions []*ledgerv1.Position) []*ledgerv1.Position {
	return slices.DeleteFunc(positions, func(p *ledgerv1.Position) bool {
		_, err := r.Clients.Ledger.GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: p})
		return err == nil
	})
}

// Replay makes every decision of the ledger anew and returns how many there
// were; one that differs is an error.
func (r *Run) Replay(ctx context.Context) (uint64, error) {
	stream, err := r.Clients.Replays.ReplayDecisions(ctx, &claimsv1.ReplayDecisionsRequest{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = stream.Close() }()
	var last *claimsv1.ReplayDecisionsResponse
	for stream.Receive() {
		if last = stream.Msg(); last.GetDecision() != nil {
			return 0, fmt.Errorf("reconcile: the decision of %s is not identical: %s", last.GetDecision().GetClaimId(), last.GetDecision().GetVerdict())
		}
	}
	switch {
	case stream.Err() != nil:
		return 0, stream.Err()
	case !last.GetDone() || last.GetCounts().GetIdentical() != last.GetCounts().GetDecisions():
		return 0, errors.New("reconcile: the replay broke off")
	}
	return last.GetCounts().GetDecisions(), nil
}

// claim compares what a remittance says of a claim.
func (r *Run) claim(c adviceClaim, out *Result) {
	want, ok := r.expected[c.id]
	if !ok {
		out.differ(c.paid, "%s is on a remittance and was never filed", c.id)
		return
	}
	kind := r.kinds[c.id]
	if d := abs(c.paid-want.Paid) + abs(c.patient-want.Patient); d > 0 {
		out.tell("%s (%s): paid %d, patient %d; naive %d, %d", c.id, kind, c.paid, c.patient, want.Paid, want.Patient)
		out.Cents += d
	}
	if len(c.lines) != len(want.Lines) {
		out.differ(want.Charge, "%s (%s) has %d lines, by the naive model %d", c.id, kind, len(c.lines), len(want.Lines))
		return
	}
	for i, l := range c.lines {
		w := want.Lines[i]
		out.Lines++
		if d := abs(l.paid-w.Paid) + abs(l.allowed-w.Allowed) + abs(l.patient()-w.Patient) + abs(l.charge-w.Charge); d > 0 {
			out.Cents += d
			out.tell("%s line %d (%s): allowed %d, paid %d, patient %d; naive %d, %d, %d", c.id, i+1, kind, l.allowed, l.paid, l.patient(), w.Allowed, w.Paid, w.Patient)
			continue
		}
		if !l.sameReasons(w.Adjustments) {
			out.Reasons++
			out.tell("%s line %d (%s): %v; naive %v", c.id, i+1, kind, l.adjustments, w.Adjustments)
		}
	}
}

func abs(n int64) int64 {
	if n < 0 {
		return -n
	}
	return n
}
