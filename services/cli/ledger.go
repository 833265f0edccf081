package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
)

func (a *app) ledgerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Hold the ledger to its word: checkpoints, policy, evidence",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.checkpointCommand(), a.consistencyCommand(), a.evidenceCommand(), a.policyCommand(), a.republishCommand(), a.hammerCommand())
	return cmd
}

func (a *app) checkpointCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Write the newest final checkpoint",
		Long: `Write the newest final checkpoint.

Keep it: with "probity ledger consistency" it later proves that nothing that
was final then has been changed or dropped since.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.ledger.GetCheckpoint(cmd.Context(), &ledgerv1.GetCheckpointRequest{})
			if err != nil {
				return err
			}
			return a.writeTo(out, func(w io.Writer) error { _, err := w.Write(got.GetCheckpoint()); return err })
		},
	}
	cmd.Flags().StringVarP(&out, "file", "f", "-", "where to write; - is standard output")
	return cmd
}

func (a *app) consistencyCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "consistency CHECKPOINT",
		Short: "Write the proof that the ledger only grew since a checkpoint",
		Long: `Write the proof that the ledger only grew since a checkpoint.

The document holds both checkpoints and verifies offline: probity verify.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			older, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			from, err := receipt.UnverifiedCheckpoint(older)
			if err != nil {
				return usageError{fmt.Errorf("%s: %w", args[0], err)}
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.proofs.GetConsistency(cmd.Context(), &ledgerv1.GetConsistencyRequest{OlderSize: from.Size})
			if err != nil {
				return err
			}
			doc := receipt.Consistency{Older: older, Newer: got.GetCheckpoint()}
			for _, h := range got.GetProof() {
				if len(h) != receipt.HashSize {
					return errors.New("the ledger sent a proof that is none")
				}
				doc.Proof = append(doc.Proof, receipt.Hash(h))
			}
			return a.writeTo(out, func(w io.Writer) error { _, err := w.Write(doc.Marshal()); return err })
		},
	}
	cmd.Flags().StringVarP(&out, "file", "f", "-", "where to write; - is standard output")
	return cmd
}

// charge is one piece of evidence as the command shows it.
type charge struct {
	Wrong    string   `json:"wrong"`
	Place    string   `json:"place"`
	Signers  []string `json:"signers"`
	Document string   `json:"document"`
}

func (a *app) evidenceCommand() *cobra.Command {
	var policyFile, folder string
	var broken brokenPromise
	cmd := &cobra.Command{
		Use:   "evidence",
		Short: "Show who signed what no honest party signs",
		Long: `Show who signed what no honest party signs: two heads of one size, a head
that is no prefix of what is final, a promise that a final block breaks.

Each is verified here before it is shown. --export writes the documents, each
of which convicts by itself: probity verify.

--promise holds a promise against what became final at its position. Exit
code 7 says that another commit stands there: promise and receipt together are
written as evidence against who signed the promise. With --receipt and
--policy that needs no server. A position that is not final yet proves
nothing; ask again once the shard has grown.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if broken.promise != "" {
				return a.checkPromise(cmd, broken, policyFile)
			}
			if broken.receipt != "" || broken.submit || broken.out != "" {
				return usagef("--receipt, --file and --submit go with --promise")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			policy, err := a.policyFrom(cmd, conn, policyFile)
			if err != nil {
				return err
			}
			got, err := conn.proofs.ListEvidence(cmd.Context(), &ledgerv1.ListEvidenceRequest{})
			if err != nil {
				return err
			}
			charges := make([]any, 0, len(got.GetEvidence()))
			for i, document := range got.GetEvidence() {
				found, err := receipt.VerifyEvidence(document, policy)
				if err != nil {
					return fmt.Errorf("evidence %d convicts nobody: %w", i+1, err)
				}
				charges = append(charges, charge{Wrong: string(found.Wrong), Place: found.Place, Signers: found.Signers, Document: string(document)})
			}
			if folder != "" {
				if err := exportEvidence(folder, got.GetEvidence()); err != nil {
					return err
				}
			}
			return a.emit(charges, charges, func(w io.Writer) error {
				if len(charges) == 0 {
					fmt.Fprintln(w, "no evidence against anyone")
				}
				for _, c := range charges {
					c := c.(charge)
					fmt.Fprintf(w, "%s  %s  %s\n", c.Wrong, c.Place, strings.Join(c.Signers, ", "))
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&policyFile, "policy", "", "verify by this policy file instead of the server's")
	cmd.Flags().StringVar(&folder, "export", "", "write the documents to this folder")
	cmd.Flags().StringVar(&broken.promise, "promise", "", "hold this promise against what is final at its position")
	cmd.Flags().StringVar(&broken.receipt, "receipt", "", "the position's final receipt, instead of asking the server")
	cmd.Flags().StringVarP(&broken.out, "file", "f", "", "where to write the evidence; - is standard output")
	cmd.Flags().BoolVar(&broken.submit, "submit", false, "have the server's ledger keep the evidence, too")
	return cmd
}

// brokenPromise is how a promise is to be held against the ledger.
type brokenPromise struct {
	promise, receipt, out string
	submit                bool
}

// judgement is what became of a promise.
type judgement struct {
	Promise  string   `json:"promise"`
	Kept     bool     `json:"kept"`
	Position string   `json:"position"`
	Signers  []string `json:"signers"`
	Evidence string   `json:"evidence,omitempty"`
}

func (a *app) checkPromise(cmd *cobra.Command, how brokenPromise, policyFile string) error {
	promise, err := readProof(how.promise)
	if err != nil {
		return err
	}
	parsed, err := receipt.ParsePromise(promise)
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", how.promise, err)}
	}
	var conn *connection
	if how.receipt == "" || policyFile == "" || how.submit {
		if conn, err = a.connect(); err != nil {
			return err
		}
	}
	policy, err := a.policyFrom(cmd, conn, policyFile)
	if err != nil {
		return err
	}
	// First, so that nobody's server is asked about a forgery.
	signed, err := receipt.VerifyPromise(promise, policy)
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", how.promise, err)}
	}
	var final []byte
	if how.receipt != "" {
		final, err = readProof(how.receipt)
	} else {
		var got *ledgerv1.GetReceiptResponse
		got, err = conn.ledger.GetReceipt(cmd.Context(), &ledgerv1.GetReceiptRequest{
			Position: &ledgerv1.Position{Log: parsed.Log, Shard: parsed.Shard, Index: parsed.Index},
		})
		final = got.GetReceipt()
	}
	if err != nil {
		return err
	}
	out := judgement{Promise: how.promise, Position: fmt.Sprintf("%s/%d/%d", signed.Log, signed.Shard, signed.Index), Signers: signed.Signers}
	evidence, found, err := receipt.AccuseOfPromise(promise, final, policy)
	switch {
	case errors.Is(err, receipt.ErrKept):
		out.Kept = true
		return a.emit(out, nil, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s: %s: the commit that %s promised %s has it\n", how.promise, a.paint(green, "kept"), strings.Join(out.Signers, ", "), out.Position)
			return err
		})
	case err != nil:
		return err
	}
	document := evidence.Marshal()
	out.Signers, out.Evidence = found.Signers, string(document)
	if how.out != "" {
		if err := a.writeTo(how.out, func(w io.Writer) error { _, err := w.Write(document); return err }); err != nil {
			return err
		}
	}
	if how.submit {
		if _, err := conn.proofs.SubmitEvidence(cmd.Context(), &ledgerv1.SubmitEvidenceRequest{Evidence: document}); err != nil {
			return err
		}
	}
	if how.out != "-" {
		if err := a.emit(out, nil, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s: %s: another commit stands at %s, final; the promise convicts %s\n", how.promise, a.paint(red, "BROKEN"), out.Position, strings.Join(found.Signers, ", "))
			return err
		}); err != nil {
			return err
		}
	}
	if how.out == "" {
		a.say("next: the same with --file evidence.txt, which convicts by itself: probity verify evidence.txt --policy policy.txt")
	}
	return outcome(ExitProofFailed)
}

func exportEvidence(folder string, documents [][]byte) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for i, document := range documents {
		if err := os.WriteFile(filepath.Join(folder, strconv.Itoa(i+1)+".evidence"), document, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// policyFrom reads a policy file or, without one, asks the server.
func (a *app) policyFrom(cmd *cobra.Command, conn *connection, file string) (receipt.Policy, error) {
	if file != "" {
		return readPolicy(file)
	}
	got, err := conn.proofs.GetLedgerPolicy(cmd.Context(), &ledgerv1.GetLedgerPolicyRequest{})
	if err != nil {
		return receipt.Policy{}, err
	}
	return receipt.ParsePolicy(got.GetPolicy())
}

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show, sign or submit the ledger's policy",
		Long: `Show, sign or submit the ledger's policy: who cosigns, how many of them make
a checkpoint final, and which logs there are, each version with the block
height from which it holds.

To change it, write the next version's text (sequence one more, "activates" a
height that is ahead, "prev" as "probity ledger policy" prints it), let a
quorum of the members before and of the members after sign it, and submit it.`,
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
			policy, err := receipt.ParsePolicy(got.GetPolicy())
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				hash := policy.Last().Hash()
				fmt.Fprintf(w, "# in force for the next block: version %d; the next version's prev: %s\n", got.GetSequence(), base64.StdEncoding.EncodeToString(hash[:]))
				_, err := w.Write(got.GetPolicy())
				return err
			})
		},
	}
	cmd.AddCommand(a.signPolicyCommand(), a.submitPolicyCommand())
	return cmd
}

func (a *app) signPolicyCommand() *cobra.Command {
	var key, out string
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Add a member's signature to a policy change, offline",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			raw, err := os.ReadFile(key)
			if err != nil {
				return err
			}
			signing, err := receipt.ParseSigningKey(strings.TrimSpace(string(raw)))
			if err != nil {
				return usageError{fmt.Errorf("%s: %w", key, err)}
			}
			change, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			text, signatures, _ := strings.Cut(string(change), "\n\n")
			text = strings.TrimSuffix(text, "\n") + "\n"
			if _, err := receipt.ParseTerms([]byte(text)); err != nil {
				return usageError{fmt.Errorf("%s: %w", args[0], err)}
			}
			signed, err := note.Sign(&note.Note{Text: text}, signing.Notes())
			if err != nil {
				return err
			}
			if out == "" {
				out = args[0]
			}
			return a.writeTo(out, func(w io.Writer) error { _, err := io.WriteString(w, string(signed)+signatures); return err })
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "the member's signing key file")
	cmd.Flags().StringVarP(&out, "file", "f", "", "where to write; - is standard output, default the file itself")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func (a *app) submitPolicyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "submit FILE",
		Short: "Record a signed policy change on the ledger",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.proofs.SubmitLedgerPolicy(cmd.Context(), &ledgerv1.SubmitLedgerPolicyRequest{Change: change})
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "recorded as version %d\n", got.GetSequence())
				return err
			})
		},
	}
}

func (a *app) republishCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "republish LOG SHARD",
		Short: "Write a lost shard back to its empty topic from a replica",
		Long: `Write a lost shard back to its empty topic from a replica.

Commits keep their bytes and indexes, so roots and receipts stay valid. Ask a
ledger node itself (--server), as a service, while no node appends: the
replicas compare the new topic with what they hold before they go on.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			shard, err := strconv.ParseUint(args[1], 10, 31)
			if err != nil {
				return usagef("SHARD is a number")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.replicas.RepublishShard(cmd.Context(), &ledgerv1.RepublishShardRequest{Log: args[0], Shard: uint32(shard)})
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "wrote %d commits in %d records\n", got.GetCommits(), got.GetRecords())
				return err
			})
		},
	}
}
