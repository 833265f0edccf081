package hammer_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/hammer"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// sound is a ledger as it should be, and whom to believe about it.
func sound(t *testing.T) (hammer.Ledger, receipt.Policy) {
	t.Helper()
	w := ledgertest.NewEmbedded(t)
	n := w.Open(t, w.Config)
	policy, err := receipt.NewPolicy(w.Origin(), 1, n.VerifierKey())
	require.NoError(t, err)
	return n.Handler(), policy
}

func hammerOn(t *testing.T, l hammer.Ledger, policy receipt.Policy) hammer.Result {
	t.Helper()
	res, err := hammer.Run(t.Context(), l, hammer.Options{
		Name: "run1", Log: "claims", Callers: 3, Rate: 300, Duration: 300 * time.Millisecond, Payload: 64,
		Retry: 5 * time.Second, Policy: policy,
	})
	require.NoError(t, err)
	return res
}

func TestASoundLedgerKeepsItsWord(t *testing.T) {
	l, policy := sound(t)
	res := hammerOn(t, l, policy)
	require.Empty(t, res.Faults)
	require.Greater(t, res.Appends, uint64(10))
	require.Equal(t, int(res.Appends), res.Receipts)
	require.Zero(t, res.Unknown)
	require.Positive(t, res.P50)
}

// lost is a ledger whose answers get lost, every third of them.
type lost struct {
	hammer.Ledger
	n *atomic.Int64
}

func (l lost) Append(ctx context.Context, r *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error) {
	res, err := l.Ledger.Append(ctx, r)
	if l.n.Add(1)%3 == 0 {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("connection reset"))
	}
	return res, err
}

func TestLostAnswersAreAskedForAgain(t *testing.T) {
	l, policy := sound(t)
	res := hammerOn(t, lost{l, new(atomic.Int64)}, policy)
	require.Empty(t, res.Faults)
	require.Positive(t, res.Retries)
	require.Contains(t, res.LastError, "connection reset")
}

// liar is a ledger that breaks its word in one of several ways.
type liar struct {
	hammer.Ledger
	how string
	n   *atomic.Int64
}

func (l liar) Append(ctx context.Context, r *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error) {
	n := l.n.Add(1)
	if l.how == "doubled" && n == 5 {
		again := proto.CloneOf(r)
		again.RequestId += "-again"
		again.Writes[0].ExpectedRevision = -2
		if _, err := l.Ledger.Append(ctx, again); err != nil {
			return nil, err
		}
		r = proto.CloneOf(r)
		r.Writes[0].ExpectedRevision = -2
	}
	return l.Ledger.Append(ctx, r)
}

func (l liar) ReadStream(ctx context.Context, r *ledgerv1.ReadStreamRequest) (*ledgerv1.ReadStreamResponse, error) {
	res, err := l.Ledger.ReadStream(ctx, r)
	if err == nil && l.how == "lost" && len(res.Events) > 1 {
		res.Events = res.Events[:len(res.Events)-1]
	}
	return res, err
}

func (l liar) GetReceipt(ctx context.Context, r *ledgerv1.GetReceiptRequest) (*ledgerv1.GetReceiptResponse, error) {
	if l.how == "another's receipt" {
		r = proto.CloneOf(r)
		r.Position.Index = 0
	}
	res, err := l.Ledger.GetReceipt(ctx, r)
	if err == nil && l.how == "a forged receipt" {
		res.Receipt[40] ^= 1
	}
	return res, err
}

func TestALiarIsCaught(t *testing.T) {
	for how, kind := range map[string]string{
		"lost": "lost", "doubled": "doubled", "another's receipt": "receipt", "a forged receipt": "receipt",
	} {
		t.Run(how, func(t *testing.T) {
			l, policy := sound(t)
			res := hammerOn(t, liar{l, how, new(atomic.Int64)}, policy)
			var kinds []string
			for _, f := range res.Faults {
				kinds = append(kinds, f.Kind)
			}
			require.Contains(t, kinds, kind)
		})
	}
}

// What can't be done at all is an error and no result.
func TestALogThatIsNotThere(t *testing.T) {
	l, policy := sound(t)
	_, err := hammer.Run(t.Context(), l, hammer.Options{Name: "run1", Log: "nosuchlog", Duration: time.Second, Policy: policy})
	require.ErrorContains(t, err, "no such log")
}
