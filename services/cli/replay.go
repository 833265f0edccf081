package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/problem"
)

func (a *app) claimsReplay() *cobra.Command {
	var claim, from, to string
	var all, keepGoing bool
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Make recorded decisions anew and compare them bit for bit",
		Long: `Make recorded decisions anew and compare them bit for bit.

Each decision is made from what it says it read: the claim, the reference data
as far as it was known then, the family's accumulators, a review. Any replica
of the ledger gives the same answer. The first difference is told and ends the
replay with exit code 6; decisions of another engine version and of erased
persons are counted apart.

Positions are those that claims show: claims/3/120, or 3/120.`,
		Example: "  probity claims replay --claim clm_…\n  probity claims replay --from 0/1000 --to 0/1999\n  probity claims replay --all",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &claimsv1.ReplayDecisionsRequest{ClaimId: claim, KeepGoing: keepGoing}
			ways := 0
			for _, given := range []bool{claim != "", from != "" || to != "", all} {
				if given {
					ways++
				}
			}
			if ways != 1 {
				return usagef("say what to replay: one of --claim, --from and --to, or --all")
			}
			var err error
			if req.From, err = positionOf(from); err != nil {
				return err
			}
			if req.To, err = positionOf(to); err != nil {
				return err
			}
			if req.GetFrom() != nil && req.GetTo() != nil && req.GetFrom().GetShard() != req.GetTo().GetShard() {
				return usagef("--from and --to lie in different shards")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.replay(cmd.Context(), req, a.replayProgress())
			if err != nil {
				return err
			}
			return a.reportReplay(got)
		},
	}
	cmd.Flags().StringVar(&claim, "claim", "", "every decision of this claim")
	cmd.Flags().StringVar(&from, "from", "", "first position; without --to up to the shard's end")
	cmd.Flags().StringVar(&to, "to", "", "last position")
	cmd.Flags().BoolVar(&all, "all", false, "the whole log")
	cmd.Flags().BoolVar(&keepGoing, "keep-going", false, "go on after a difference")
	return cmd
}

// positionOf reads "claims/3/120" or "3/120"; nothing is nil.
func positionOf(s string) (*ledgerv1.Position, error) {
	if s == "" {
		return nil, nil
	}
	shard, index, ok := strings.Cut(strings.TrimPrefix(s, "claims/"), "/")
	n, err1 := strconv.ParseUint(shard, 10, 32)
	i, err2 := strconv.ParseUint(index, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return nil, usagef("%q is no position of the claims log, as 3/120 is", s)
	}
	return &ledgerv1.Position{Log: "claims", Shard: uint32(n), Index: i}, nil
}

// replayed is a replay that has ended.
type replayed struct {
	counts    *claimsv1.ReplayCounts
	decisions []*claimsv1.ReplayedDecision
}

// replay collects what a replay tells.
func (c *connection) replay(ctx context.Context, req *claimsv1.ReplayDecisionsRequest, progress func(*claimsv1.ReplayDecisionsResponse)) (replayed, error) {
	stream, err := c.replays.ReplayDecisions(ctx, req)
	if err != nil {
		return replayed{}, err
	}
	defer func() { _ = stream.Close() }()
	out := replayed{}
	done := false
	for stream.Receive() {
		m := stream.Msg()
		out.counts, done = m.GetCounts(), m.GetDone()
		if m.GetDecision() != nil {
			out.decisions = append(out.decisions, m.GetDecision())
		}
		if progress != nil {
			progress(m)
		}
	}
	if err := stream.Err(); err != nil {
		return out, err
	}
	if !done {
		return out, brokenOff()
	}
	return out, nil
}

// brokenOff: the server closed the stream before its end, as it does when it stops.
func brokenOff() error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID: "cli.stream.ended", Message: "the service ended before the answer was complete", Fix: "send the same command again in a moment",
	})
}

// replayProgress tells a person at a terminal how far it is, every second.
func (a *app) replayProgress() func(*claimsv1.ReplayDecisionsResponse) {
	if !a.ErrTerminal {
		return nil
	}
	last := a.Now()
	return func(m *claimsv1.ReplayDecisionsResponse) {
		if now := a.Now(); now.Sub(last) >= time.Second && !m.GetDone() {
			last = now
			a.say("replayed %d decisions, at %s", m.GetCounts().GetDecisions(), place(m.GetReached()))
		}
	}
}

var verdicts = map[claimsv1.ReplayVerdict]string{
	claimsv1.ReplayVerdict_REPLAY_VERDICT_IDENTICAL:    "identical",
	claimsv1.ReplayVerdict_REPLAY_VERDICT_DIFFERENT:    "different",
	claimsv1.ReplayVerdict_REPLAY_VERDICT_OTHER_ENGINE: "other-engine",
	claimsv1.ReplayVerdict_REPLAY_VERDICT_ERASED:       "erased",
}

// reportReplay prints the result; a difference is exit code 6, and a replay
// that could compare nothing has failed.
func (a *app) reportReplay(got replayed) error {
	n := got.counts
	doc := map[string]any{"counts": raw(n), "decisions": raws(got.decisions)}
	if err := a.emit(doc, raws(got.decisions), func(w io.Writer) error {
		for _, d := range got.decisions {
			verdict := verdicts[d.GetVerdict()]
			if d.GetVerdict() == claimsv1.ReplayVerdict_REPLAY_VERDICT_DIFFERENT {
				verdict = a.paint(red, verdict)
			}
			fmt.Fprintf(w, "%s  %s  %s  sha256:%s\n", place(d.GetPosition()), d.GetClaimId(), verdict, hex.EncodeToString(d.GetRecordedSha256()))
			if len(d.GetReplayedSha256()) > 0 && d.GetVerdict() != claimsv1.ReplayVerdict_REPLAY_VERDICT_IDENTICAL {
				fmt.Fprintf(w, "  made anew  sha256:%s\n", hex.EncodeToString(d.GetReplayedSha256()))
			}
			for _, x := range d.GetDifferences() {
				fmt.Fprintf(w, "  %s  recorded %s, made anew %s\n", x.GetPath(), x.GetRecorded(), x.GetReplayed())
			}
		}
		fmt.Fprintf(w, "%d decisions: %d identical, %d different", n.GetDecisions(), n.GetIdentical(), n.GetDifferent())
		if n.GetOtherEngine() > 0 {
			fmt.Fprintf(w, ", %d of another engine version", n.GetOtherEngine())
		}
		if n.GetErased() > 0 {
			fmt.Fprintf(w, ", %d erased", n.GetErased())
		}
		_, err := fmt.Fprintln(w)
		return err
	}); err != nil {
		return err
	}
	switch {
	case n.GetDifferent() > 0:
		return outcome(ExitDiffers)
	case n.GetDecisions() > 0 && n.GetIdentical() == 0:
		a.say("none of them could be compared")
		return outcome(ExitFailed)
	}
	return nil
}
