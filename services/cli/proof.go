package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

func (a *app) receiptCommand() *cobra.Command {
	var out, commit string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "receipt CLAIM_ID",
		Short: "Write the proof of a claim's last decision",
		Long: `Write the proof of a claim's last decision.

The receipt verifies offline, with public keys alone: probity verify. It
exists once the decision is sealed in a signed block, a moment after it is
made; until then this waits.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			claim, err := conn.claims.GetClaim(cmd.Context(), &claimsv1.GetClaimRequest{ClaimId: args[0]})
			if err != nil {
				return err
			}
			if claim.GetClaim().GetPosition() == nil {
				return problem.New(problem.NotFound, problem.Problem{
					RuleID: "cli.receipt.undecided", Message: "the claim has no decision on the ledger yet", Fix: "probity claims watch " + args[0],
				})
			}
			got, err := a.sealed(cmd.Context(), conn, claim.GetClaim().GetPosition(), commit != "", wait)
			if err != nil {
				return err
			}
			if commit != "" {
				if err := a.writeTo(commit, func(w io.Writer) error { _, err := w.Write(got.GetCommit()); return err }); err != nil {
					return err
				}
			}
			if err := a.writeTo(out, func(w io.Writer) error { _, err := w.Write(got.GetReceipt()); return err }); err != nil {
				return err
			}
			a.say("next: probity verify %s --policy keys.json (made by: probity keys -f keys.json)", nameOr(out, "RECEIPT"))
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "file", "f", "-", "where to write; - is standard output")
	cmd.Flags().StringVar(&commit, "commit", "", "also write the sealed commit record the receipt proves")
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for the block")
	return cmd
}

func nameOr(path, fallback string) string {
	if path == "" || path == "-" {
		return fallback
	}
	return path
}

// sealed asks for a receipt until there is one. "Not yet" and "not reachable"
// look the same to someone who waits.
func (a *app) sealed(ctx context.Context, conn *connection, at *ledgerv1.Position, commit bool, wait time.Duration) (*ledgerv1.GetReceiptResponse, error) {
	until := a.Now().Add(wait)
	for pause := firstPause; ; pause = min(pause*3/2, maxPause) {
		got, err := conn.ledger.GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: at, IncludeCommit: commit})
		var p *problem.Error
		if err == nil || !errors.As(err, &p) || !(p.Retryable() || p.Kind == problem.Conflict) || !a.Now().Before(until) {
			return got, err
		}
		if err := a.Sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// trust is the file a verifier keeps: whom it believes. It is receipt.Policy on disk.
type trust struct {
	// Origin names the ledger.
	Origin string `json:"origin"`
	// Quorum is how many of Keys must have signed.
	Quorum int `json:"quorum"`
	// Keys are verifier keys in the note package's form.
	Keys []string `json:"keys"`
}

func (a *app) keysCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Write the ledger's public keys, for verifying offline",
		Long: `Write the ledger's public keys, for verifying offline.

This trusts the server once. Compare the keys with those the parties publish
themselves before you rely on them; the quorum is set to all but a third.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			ledger, err := conn.ledger.GetLedger(cmd.Context(), &ledgerv1.GetLedgerRequest{})
			if err != nil {
				return err
			}
			checkpoint, err := conn.ledger.GetCheckpoint(cmd.Context(), &ledgerv1.GetCheckpointRequest{})
			if err != nil {
				return err
			}
			n := len(checkpoint.GetVerifierKeys())
			// n >= 3f+1 parties of whom f may lie; n-f is the quorum.
			t := trust{Origin: ledger.GetOrigin(), Keys: checkpoint.GetVerifierKeys(), Quorum: n - (n-1)/3}
			text, err := json.MarshalIndent(t, "", "  ")
			if err != nil {
				return err
			}
			return a.writeTo(out, func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err })
		},
	}
	cmd.Flags().StringVarP(&out, "file", "f", "-", "where to write; - is standard output")
	return cmd
}

func readTrust(path string) (receipt.Policy, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return receipt.Policy{}, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var t trust
	if err := decoder.Decode(&t); err != nil {
		return receipt.Policy{}, usageError{fmt.Errorf("%s: %w", path, err)}
	}
	policy, err := receipt.NewPolicy(t.Origin, t.Quorum, t.Keys...)
	if err != nil {
		return receipt.Policy{}, usageError{fmt.Errorf("%s: %w", path, err)}
	}
	return policy, nil
}

// verdict is what verify says of one document.
type verdict struct {
	File     string   `json:"file"`
	Valid    bool     `json:"valid"`
	Kind     string   `json:"kind"`
	Position string   `json:"position,omitempty"`
	Height   uint64   `json:"height,omitempty"`
	Time     string   `json:"time,omitempty"`
	Signers  []string `json:"signers,omitempty"`
	Reason   string   `json:"reason,omitempty"`
}

func (a *app) verifyCommand() *cobra.Command {
	var policyFile, commit string
	cmd := &cobra.Command{
		Use:   "verify RECEIPT...",
		Short: "Verify receipts offline",
		Long: `Verify receipts, and promises, offline: with public keys and nothing else.

A receipt proves that the commit stands on the ledger and that a quorum of
the parties signed it. A promise proves only that the ledger took it on.
Exit code 7 says that a document proves nothing.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			if policyFile == "" {
				return usagef("--policy is needed: whose signatures do you believe? probity keys -f keys.json makes one")
			}
			if commit != "" && len(files) != 1 {
				return usagef("--commit goes with one receipt")
			}
			policy, err := readTrust(policyFile)
			if err != nil {
				return err
			}
			verdicts := make([]any, 0, len(files))
			failed := false
			for _, path := range files {
				v, err := verify(path, commit, policy)
				if err != nil {
					return err
				}
				failed = failed || !v.Valid
				verdicts = append(verdicts, v)
			}
			if err := a.emit(verdicts, verdicts, func(w io.Writer) error {
				for _, v := range verdicts {
					a.printVerdict(w, v.(verdict))
				}
				return nil
			}); err != nil {
				return err
			}
			if failed {
				return outcome(ExitProofFailed)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&policyFile, "policy", "", "JSON file with origin, quorum and keys")
	cmd.Flags().StringVar(&commit, "commit", "", "also check that this commit record is the one proved")
	return cmd
}

// verify reads one document and judges it; its error is that of reading.
func verify(path, commitPath string, policy receipt.Policy) (verdict, error) {
	f, err := os.Open(path)
	if err != nil {
		return verdict{}, err
	}
	document, err := io.ReadAll(io.LimitReader(f, receipt.MaxSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return verdict{}, err
	}
	v := verdict{File: path, Kind: "receipt"}
	var proved receipt.Verified
	if strings.HasPrefix(string(document), "probity promise") {
		v.Kind = "promise"
		proved, err = receipt.VerifyPromise(document, policy)
	} else {
		proved, err = receipt.Verify(document, policy)
	}
	if err == nil && commitPath != "" {
		commit, readErr := os.ReadFile(commitPath)
		if readErr != nil {
			return verdict{}, readErr
		}
		err = receipt.VerifyCommit(proved, commit)
	}
	if err != nil {
		v.Reason = err.Error()
		return v, nil
	}
	v.Valid, v.Height, v.Signers = true, proved.Height, proved.Signers
	v.Position = fmt.Sprintf("%s/%d/%d", proved.Log, proved.Shard, proved.Index)
	if !proved.Time.IsZero() {
		v.Time = proved.Time.UTC().Format(time.RFC3339)
	}
	return v, nil
}

func (a *app) printVerdict(w io.Writer, v verdict) {
	if !v.Valid {
		fmt.Fprintf(w, "%s: %s, the %s proves nothing: %s\n", v.File, a.paint(red, "FAILED"), v.Kind, v.Reason)
		return
	}
	fmt.Fprintf(w, "%s: %s %s of %s", v.File, a.paint(green, "valid"), v.Kind, v.Position)
	if v.Kind == "receipt" {
		fmt.Fprintf(w, ", final in block %d of %s", v.Height, v.Time)
	}
	fmt.Fprintf(w, ", signed by %s\n", strings.Join(v.Signers, ", "))
}
