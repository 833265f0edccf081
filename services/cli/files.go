package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
)

func (a *app) filesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "files", Short: "List, watch, cancel and resume submitted files, and get their acknowledgements", Args: cobra.NoArgs}
	cmd.AddCommand(a.filesList(), a.filesGet(), a.filesOutcomes(), a.filesWatch(), a.filesCancel(), a.filesResume(), a.filesDocument())
	return cmd
}

var fileStates = map[claimsv1.FileState]string{
	claimsv1.FileState_FILE_STATE_PROCESSING: "being decided",
	claimsv1.FileState_FILE_STATE_COMPLETE:   "complete",
	claimsv1.FileState_FILE_STATE_REFUSED:    "refused",
	claimsv1.FileState_FILE_STATE_CANCELING:  "being canceled",
	claimsv1.FileState_FILE_STATE_CANCELED:   "canceled",
}

func (a *app) filesList() *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the files you may see, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.files.ListFiles(cmd.Context(), &claimsv1.ListFilesRequest{PageSize: limit})
			if err != nil {
				return err
			}
			list := raws(got.GetFiles())
			return a.emit(list, list, func(w io.Writer) error {
				rows := right(grid("FILE", "KIND", "CLAIMS", "DONE", "STATE", "RECEIVED"), "CLAIMS", "DONE")
				for _, f := range got.GetFiles() {
					rows.AppendRow([]any{f.GetFileId(), f.GetKind(), f.GetClaimCount(), f.GetOutcomeCount(), fileStates[f.GetState()], a.time(f.GetReceivedTime())})
				}
				return render(w, rows)
			})
		},
	}
	cmd.Flags().Uint32Var(&limit, "limit", 50, "at most this many, up to 1000")
	return cmd
}

func (a *app) filesGet() *cobra.Command {
	return &cobra.Command{
		Use:   "get FILE_ID",
		Short: "Show one file and what was refused in it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.getFile(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				f := got.GetFile()
				fmt.Fprintf(w, "file       %s\nkind       %s, %d bytes, interchange %s\nstate      %s, %d of %d claims have an outcome\nreceived   %s\nproof      %s\n",
					f.GetFileId(), f.GetKind(), f.GetSizeBytes(), f.GetInterchangeControlNumber(),
					fileStates[f.GetState()], f.GetOutcomeCount(), f.GetClaimCount(), a.time(f.GetReceivedTime()), place(f.GetPosition()))
				if f.GetNotProcessedCount() > 0 {
					fmt.Fprintf(w, "left       %s not processed\n", counted(f.GetNotProcessedCount(), "claim was", "claims were"))
				}
				if len(f.GetRemittanceIds()) > 0 {
					fmt.Fprintf(w, "remittance %s\n", strings.Join(f.GetRemittanceIds(), " "))
				}
				printProblems(w, a.paint(red, "refused"), f.GetProblems())
				for _, o := range got.GetOutcomes() {
					if o.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED {
						printProblems(w, a.paint(red, fmt.Sprintf("claim #%d refused", o.GetOrdinal()+1)), o.GetProblems())
					}
				}
				return nil
			})
		},
	}
}

// getFile reads a file with the outcomes of all its claims.
func (c *connection) getFile(ctx context.Context, id string) (*claimsv1.GetFileResponse, error) {
	got, err := c.files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: id})
	if err != nil {
		return nil, err
	}
	got.Outcomes = nil
	return got, c.listOutcomes(ctx, id, func(o *claimsv1.ClaimOutcome) error {
		got.Outcomes = append(got.Outcomes, o)
		return nil
	})
}

func (a *app) filesDocument() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "document FILE_ID 999|277CA",
		Short: "Write a file's X12 acknowledgement",
		Long: `Write a file's X12 acknowledgement.

999 says whether the file's syntax was accepted; 277CA says of every claim
whether it was accepted for decision, and so exists when every claim has an
outcome; the 999 exists from receipt on. What was decided is in the 835: see
probity remit.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] != "999" && args[1] != "277CA" {
				return usagef("%q is neither 999 nor 277CA", args[1])
			}
			return a.writeDocument(cmd, args[1], args[0], out)
		},
	}
	cmd.Flags().StringVarP(&out, "file", "f", "-", "where to write; - is standard output")
	return cmd
}

func (a *app) writeDocument(cmd *cobra.Command, kind, id, path string) error {
	conn, err := a.connect()
	if err != nil {
		return err
	}
	return a.writeTo(path, func(w io.Writer) error { return conn.document(cmd.Context(), kind, id, w) })
}

// writeTo writes a file whole or not at all: beside its place, then renamed into it.
func (a *app) writeTo(path string, write func(io.Writer) error) error {
	if path == "-" || path == "" {
		return write(a.Out)
	}
	draft, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	if err := errors.Join(write(draft), draft.Close()); err != nil {
		return err
	}
	if err := os.Rename(draft.Name(), path); err != nil {
		return err
	}
	a.say("wrote %s", path)
	return nil
}

func (a *app) remitCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "remit", Short: "List remittances and write their 835", Args: cobra.NoArgs}
	var filter claimsv1.ListRemittancesRequest
	list := &cobra.Command{
		Use:   "list",
		Short: "List the remittances you may see, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.remittances.ListRemittances(cmd.Context(), &filter)
			if err != nil {
				return err
			}
			list := raws(got.GetRemittances())
			return a.emit(list, list, func(w io.Writer) error {
				rows := right(grid("REMITTANCE", "PAYER", "PAYEE", "CLAIMS", "PAID", "DATE", "TRACE", ""), "CLAIMS", "PAID")
				for _, r := range got.GetRemittances() {
					void := ""
					if r.GetVoided() {
						void = "void"
					}
					rows.AppendRow([]any{r.GetRemittanceId(), r.GetPayerId(), r.GetPayeeNpi(), max(int(r.GetClaimCount()), len(r.GetClaimIds())), dollars(r.GetPaidCents()), r.GetPaymentDate(), r.GetTraceNumber(), void})
				}
				return render(w, rows)
			})
		},
	}
	list.Flags().StringVar(&filter.FileId, "file", "", "only those of this file")
	list.Flags().Uint32Var(&filter.PageSize, "limit", 50, "at most this many, up to 1000")
	var out string
	get := &cobra.Command{
		Use:   "get REMITTANCE_ID",
		Short: "Write a remittance as X12 835",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.writeDocument(cmd, "835", args[0], out) },
	}
	get.Flags().StringVarP(&out, "file", "f", "-", "where to write; - is standard output")
	cmd.AddCommand(list, get)
	return cmd
}
