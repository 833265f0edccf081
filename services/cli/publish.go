package cli

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
)

// published is what the answers to publishing have in common.
type published interface {
	proto.Message
	GetVersion() uint32
	GetEtag() string
	GetToken() string
}

func (a *app) plansPublish() *cobra.Command {
	var kind, etag, requestID string
	cmd := &cobra.Command{
		Use:   "publish FILE",
		Short: "Publish a version of a plan, fee schedule, contract or network",
		Long: `Publish a version of a plan, fee schedule, contract or network.

The document is linted first; one that isn't sound is refused and nothing is
recorded. A version governs the dates of service that it names, from then on
before every earlier version, also for days that are past: claims decided
under an earlier version are then found and decided again ("probity claims
changes"). A document equal to the newest version is not published again.

With --etag it is published only while the version of that etag is the newest:
what somebody else published in the meantime is not written over.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readDocument(args[0])
			if err != nil {
				return err
			}
			if kind == "" {
				if kind, err = kindOf(args[0], text); err != nil {
					return err
				}
			}
			if !slices.Contains([]string{"plan", "fee_schedule", "contract", "network"}, kind) {
				return usagef("--kind %q is none of plan, fee_schedule, contract, network", kind)
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			if requestID == "" {
				requestID = a.requestID
			}
			linted, err := conn.policies.LintDocument(cmd.Context(), &policiesv1.LintDocumentRequest{Document: string(text), Kind: kind})
			if err != nil {
				return err
			}
			if len(linted.GetProblems()) > 0 {
				if err := a.emitOne(linted, func(w io.Writer) error { printProblems(w, args[0], linted.GetProblems()); return nil }); err != nil {
					return err
				}
				return outcome(ExitFailed)
			}
			id, got, err := publishDocument(cmd.Context(), conn, kind, string(text), etag, requestID)
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s version %d, etag %s\n", id, got.GetVersion(), got.GetEtag())
				return err
			})
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "", "plan, fee_schedule, contract or network; found out when empty")
	cmd.Flags().StringVar(&etag, "etag", "", "publish only where this is the newest version's etag")
	cmd.Flags().StringVar(&requestID, "request-id", "", "idempotency key; the same key answers with the first result")
	return cmd
}

func publishDocument(ctx context.Context, conn *connection, kind, text, etag, requestID string) (string, published, error) {
	switch kind {
	case "plan":
		got, err := conn.policies.PublishPlan(ctx, &policiesv1.PublishPlanRequest{RequestId: requestID, Yaml: text, Etag: etag})
		return got.GetPlanId(), got, err
	case "fee_schedule":
		got, err := conn.policies.PublishFeeSchedule(ctx, &policiesv1.PublishFeeScheduleRequest{RequestId: requestID, Yaml: text, Etag: etag})
		return got.GetFeeScheduleId(), got, err
	case "contract":
		got, err := conn.policies.PublishContract(ctx, &policiesv1.PublishContractRequest{RequestId: requestID, Yaml: text, Etag: etag})
		return got.GetContractId(), got, err
	default:
		got, err := conn.policies.PublishNetwork(ctx, &policiesv1.PublishNetworkRequest{RequestId: requestID, Yaml: text, Etag: etag})
		return got.GetNetworkId(), got, err
	}
}
