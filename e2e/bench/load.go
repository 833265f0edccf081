package bench

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/services/gateway/x12"
)

// submissions reads the claims of a file as the gateway would, to be sent one by one.
func submissions(file []byte, prefix string) ([]*claimsv1.SubmitClaimRequest, error) {
	parsed, err := x12.ParseFile(bytes.NewReader(file), x12.Limits{})
	if err != nil {
		return nil, err
	}
	var out []*claimsv1.SubmitClaimRequest
	for c, err := range parsed.Claims(bytes.NewReader(file), 0, parsed.ClaimCount) {
		if err != nil {
			return nil, err
		}
		if len(c.Problems) > 0 {
			return nil, fmt.Errorf("bench: generated claim %d is rejected: %s", c.Ordinal, c.Problems[0].RuleID)
		}
		out = append(out, &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprintf("%s-%d", prefix, c.Ordinal), Claim: c.Claim})
	}
	return out, nil
}

// latencies of one run.
type latencies []time.Duration

// at is a quantile in milliseconds; between two it is the slower.
func (l latencies) at(q float64) float64 {
	sorted := slices.Sorted(slices.Values(l))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Seconds() * 1000
}

// decide submits one claim; a claim that isn't adjudicated is an error.
func decide(ctx context.Context, client claimsv1connect.ClaimsServiceClient, req *claimsv1.SubmitClaimRequest) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	res, err := client.SubmitClaim(ctx, req)
	switch {
	case err != nil:
		return err
	case len(res.GetProblems()) > 0:
		return fmt.Errorf("bench: a generated claim is refused: %s", res.GetProblems()[0].GetRuleId())
	case res.GetDecision() == nil || res.GetReplayed():
		return fmt.Errorf("bench: a generated claim isn't decided anew")
	}
	return nil
}

// oneCaller submits claims one after the other for a while.
func oneCaller(ctx context.Context, client claimsv1connect.ClaimsServiceClient, claims []*claimsv1.SubmitClaimRequest, length time.Duration) (latencies, error) {
	var took latencies
	for end, i := time.Now().Add(length), 0; time.Now().Before(end) && i < len(claims); i++ {
		start := time.Now()
		if err := decide(ctx, client, claims[i]); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// steady submits claims at a fixed rate, whether or not earlier ones are
// answered; a latency counts from when its claim was due, so that a stall is
// felt by all that it holds up.
func steady(ctx context.Context, client claimsv1connect.ClaimsServiceClient, claims []*claimsv1.SubmitClaimRequest, rate int, length time.Duration) (latencies, error) {
	n := min(len(claims), int(length.Seconds()*float64(rate)))
	took, errs := make(latencies, n), make([]error, n)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range n {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		select {
		case <-ctx.Done():
			wg.Wait()
			return nil, ctx.Err()
		case <-time.After(time.Until(due)):
		}
		wg.Go(func() {
			errs[i] = decide(ctx, client, claims[i])
			took[i] = time.Since(due)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return took, nil
}
