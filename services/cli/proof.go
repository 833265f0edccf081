package cli

import (
	"context"
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
exists once a quorum of the ledger's parties has cosigned the decision, a
moment after it is made; until then this waits.`,
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
			a.say("next: probity verify %s --policy policy.txt (made by: probity keys -f policy.txt)", nameOr(out, "RECEIPT"))
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "file", "f", "-", "where to write; - is standard output")
	cmd.Flags().StringVar(&commit, "commit", "", "also write the sealed commit record the receipt proves")
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for the quorum")
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

func (a *app) keysCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Write the ledger's policy with its public keys, for verifying offline",
		Long: `Write the ledger's policy with its public keys, for verifying offline.

The file says who cosigns the ledger and how many of them make something
final, for every height; each change in it is signed by a quorum of those
before. Only its first part is taken on trust: compare it once with what the
parties publish themselves.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.proofs.GetLedgerPolicy(cmd.Context(), &ledgerv1.GetLedgerPolicyRequest{})
			if err != nil {
				return err
			}
			if _, err := receipt.ParsePolicy(got.GetPolicy()); err != nil {
				return err
			}
			return a.writeTo(out, func(w io.Writer) error { _, err := w.Write(got.GetPolicy()); return err })
		},
	}
	cmd.Flags().StringVarP(&out, "file", "f", "-", "where to write; - is standard output")
	return cmd
}

func readPolicy(path string) (receipt.Policy, error) {
	if path == "" {
		return receipt.Policy{}, usagef("--policy is needed: whose signatures do you believe? probity keys -f policy.txt makes one")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return receipt.Policy{}, err
	}
	policy, err := receipt.ParsePolicy(text)
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
	// Says what a document without a position proves.
	Says   string `json:"says,omitempty"`
	Reason string `json:"reason,omitempty"`
}

func (a *app) verifyCommand() *cobra.Command {
	var policyFile, commit string
	cmd := &cobra.Command{
		Use:   "verify DOCUMENT...",
		Short: "Verify receipts and other proofs offline",
		Long: `Verify the ledger's documents offline: with a policy file and nothing else.

A receipt proves that the commit stands on the ledger and that a quorum of
the parties cosigned it. A promise proves only that the ledger took it on. A
checkpoint or a consistency proof shows what is final and that it only grew;
evidence convicts a party of two statements that no honest one makes.
Exit code 7 says that a document proves nothing.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			if commit != "" && len(files) != 1 {
				return usagef("--commit goes with one receipt")
			}
			policy, err := readPolicy(policyFile)
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
	cmd.Flags().StringVar(&policyFile, "policy", "", "the ledger's policy file (probity keys)")
	cmd.Flags().StringVar(&commit, "commit", "", "also check that this commit record is the one proved")
	return cmd
}

// maxProofFile bounds what verify reads of a file: evidence holds two documents.
const maxProofFile = 2*receipt.MaxSize + 1

// verify reads one document and judges it; its error is that of reading.
func verify(path, commitPath string, policy receipt.Policy) (verdict, error) {
	document, err := readProof(path)
	if err != nil {
		return verdict{}, err
	}
	v := verdict{File: path}
	if commitPath != "" {
		commit, err := os.ReadFile(commitPath)
		if err != nil {
			return verdict{}, err
		}
		v.judge(document, commit, policy)
	} else {
		v.judge(document, nil, policy)
	}
	return v, nil
}

// readProof reads one document, as much of it as any can have.
func readProof(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	document, err := io.ReadAll(io.LimitReader(f, maxProofFile))
	return document, errors.Join(err, f.Close())
}

// judge fills in what a document proves. With a commit it must be the one proved.
func (v *verdict) judge(document, commit []byte, policy receipt.Policy) {
	proved, err := v.proves(document, policy)
	if err == nil && commit != nil {
		err = receipt.VerifyCommit(proved, commit)
	}
	if err != nil {
		v.Reason = err.Error()
		return
	}
	v.Valid = true
	if proved.Log != "" {
		v.Height, v.Signers = proved.Height, proved.Signers
		v.Position = fmt.Sprintf("%s/%d/%d", proved.Log, proved.Shard, proved.Index)
	}
	if !proved.Time.IsZero() {
		v.Time = proved.Time.UTC().Format(time.RFC3339)
	}
}

// proves tells the kinds of documents apart by their first line; what has
// none of them is a checkpoint's note.
func (v *verdict) proves(document []byte, policy receipt.Policy) (receipt.Verified, error) {
	first, _, _ := strings.Cut(string(document), "\n")
	switch {
	case strings.HasPrefix(first, "probity receipt"):
		v.Kind = "receipt"
		return receipt.Verify(document, policy)
	case strings.HasPrefix(first, "probity promise"):
		v.Kind = "promise"
		return receipt.VerifyPromise(document, policy)
	case strings.HasPrefix(first, "probity consistency"):
		v.Kind = "consistency proof"
		older, newer, err := receipt.VerifyConsistency(document, policy)
		v.Height, v.Says = newer.Size, fmt.Sprintf("of block %d in block %d", older.Size, newer.Size)
		return receipt.Verified{}, err
	case strings.HasPrefix(first, "probity evidence"):
		v.Kind = "evidence"
		found, err := receipt.VerifyEvidence(document, policy)
		v.Says = fmt.Sprintf("of %s at %s against %s", found.Wrong, found.Place, strings.Join(found.Signers, ", "))
		return receipt.Verified{}, err
	}
	v.Kind = "checkpoint"
	c, signers, err := policy.OpenCheckpoint(document)
	v.Height, v.Signers, v.Says = c.Size, signers, fmt.Sprintf("of block %d", c.Size)
	return receipt.Verified{}, err
}

func (a *app) printVerdict(w io.Writer, v verdict) {
	if !v.Valid {
		fmt.Fprintf(w, "%s: %s, the %s proves nothing: %s\n", v.File, a.paint(red, "FAILED"), v.Kind, v.Reason)
		return
	}
	fmt.Fprintf(w, "%s: %s %s %s", v.File, a.paint(green, "valid"), v.Kind, v.Says)
	if v.Position != "" {
		fmt.Fprintf(w, "of %s", v.Position)
	}
	if v.Kind == "receipt" {
		fmt.Fprintf(w, ", final in block %d of %s", v.Height, v.Time)
	}
	if len(v.Signers) > 0 {
		fmt.Fprintf(w, ", signed by %s", strings.Join(v.Signers, ", "))
	}
	fmt.Fprintln(w)
}
