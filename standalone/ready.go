package standalone

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// readyWithin bounds a start; catching up on a long log counts into it.
const readyWithin = 2 * time.Minute

// awaitReady returns when every part says it is ready. It asks the readiness
// endpoint as a load balancer would, so what it waits for is what users see.
func (s *Stack) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	var failing []string
	for {
		ready, names := s.ask(ctx)
		if ready {
			return nil
		}
		if len(names) > 0 {
			failing = names
		}
		select {
		case <-s.done:
			return fmt.Errorf("standalone: stopped while starting: %w", s.err)
		case <-ctx.Done():
			return fmt.Errorf("standalone: not ready (%s): %w", strings.Join(failing, ", "), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Stack) ask(ctx context.Context) (ready bool, failing []string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/readyz", nil)
	if err != nil {
		return false, nil
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Ready   bool     `json:"ready"`
		Failing []string `json:"failing"`
	}
	if json.NewDecoder(resp.Body).Decode(&answer) != nil {
		return false, nil
	}
	return answer.Ready, answer.Failing
}
