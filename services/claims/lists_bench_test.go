package claims

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/views"
	"github.com/probity-health/probity/services/views/localstore"
)

// BenchmarkLists takes paid claims of a file into the lists, a hundred a batch:
// what decoding their events costs, what the projection makes of them, and what
// the store of one process does with that.
func BenchmarkLists(b *testing.B) {
	ctx, at := context.Background(), time.UnixMilli(1_790_000_000_000)
	stamp := timestamppb.New(at)
	sealed := func(n int) *typev1.Sealed {
		return &typev1.Sealed{Subject: "sub_0123456789abcdef0123456789abcdef", KeyVersion: 1, Box: make([]byte, n)}
	}
	recorded := func(i int) []*ledgerv1.RecordedEvent {
		id := fmt.Sprintf("clm_%04x_%022d", i*7919%65536, i*104729)
		events := []proto.Message{
			&eventsv1.ClaimReceived{
				ClaimId: id, PayerId: "payer_acme", SubmitterOrg: "lakeside-billing", BillingNpi: "1234567893", Subject: "sub_0123456789abcdef0123456789abcdef",
				Subscriber: "sub_0123456789abcdef0123456789abcdef", Claim: sealed(900), FileId: "file_0123456789abcdef", FileOrdinal: uint32(i), ReceivedTime: stamp, ChargeCents: 12500,
			},
			&eventsv1.ClaimDecided{
				ClaimId: id, Status: claimsv1.ClaimStatus_CLAIM_STATUS_PAID, ChargeCents: 12500, AllowedCents: 9000, PaidCents: 7000, PatientCents: 2000,
				Codes: []string{"CO-45", "PR-1", "PR-2"}, Decision: sealed(1100), DecidedTime: stamp, ReceivedTime: stamp, DecisionSha256: make([]byte, 32),
				PayerId: "payer_acme", SubmitterOrg: "lakeside-billing", Subscriber: "sub_0123456789abcdef0123456789abcdef", PromptPayState: "OH", PromptPayDueDate: "2026-10-01",
				Versions: &claimsv1.Versions{Plan: "plan-payer_acme-gold@3", Contract: "contract-1234567893@1", FeeSchedule: "fees-acme-2026@2", Network: "network-acme@1"},
			},
		}
		var out []*ledgerv1.RecordedEvent
		for n, e := range events {
			encoded, err := eventstore.Codec{}.Encode(e)
			require.NoError(b, err)
			out = append(out, &ledgerv1.RecordedEvent{
				Position: &ledgerv1.Position{Log: logName, Shard: 1, Index: uint64(i)}, Stream: "claim-" + id, Revision: uint64(n), Event: encoded, RecordedTime: timestamppb.New(at.Add(time.Duration(i/5) * time.Millisecond)),
			})
		}
		return out
	}
	codec := withoutSealed(eventstore.Codec{})
	const batch = 100
	run := func(b *testing.B, project, apply bool) {
		store, err := localstore.Open(b.TempDir(), nil)
		require.NoError(b, err)
		defer store.Close()
		p := Projection(nil)
		build := views.Build{View: p.Name, Shard: 1, Version: p.Version}
		ops := make([]views.Op, 0, 20*batch)
		b.ReportAllocs()
		b.ResetTimer()
		for i := 0; i < b.N; {
			b.StopTimer()
			in := views.Batch{Build: build, From: uint64(i), Next: uint64(min(i+batch, b.N))}
			var events []*ledgerv1.RecordedEvent
			for ; i < int(in.Next); i++ {
				events = append(events, recorded(i)...)
			}
			b.StartTimer()
			ops = ops[:0]
			for n, e := range events {
				r, err := codec.Recorded(e)
				require.NoError(b, err)
				if !project {
					continue
				}
				from := len(ops)
				ops, err = p.Apply(ops, r)
				require.NoError(b, err)
				if n%2 == 0 {
					in.Changes = append(in.Changes, views.Change{Index: r.Position.Index})
				}
				c := &in.Changes[len(in.Changes)-1]
				c.Ops = ops[from-len(c.Ops) : len(ops) : len(ops)]
			}
			if apply {
				_, err := store.Apply(ctx, in)
				require.NoError(b, err)
			}
		}
	}
	b.Run("decoded", func(b *testing.B) { run(b, false, false) })
	b.Run("projected", func(b *testing.B) { run(b, true, false) })
	b.Run("applied", func(b *testing.B) { run(b, true, true) })
}
