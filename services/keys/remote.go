package keys

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"

	consentv1 "github.com/probity-health/probity/proto/probity/consent/v1"
	"github.com/probity-health/probity/proto/probity/consent/v1/consentv1connect"
	"github.com/probity-health/probity/services/problem"
)

const (
	// maxSubjects is the limit of one GetSubjectKeys call (keys.proto).
	maxSubjects = 1000
	// remoteAttempts of one call while the consent service is away.
	remoteAttempts = 4
	remoteBackoff  = 25 * time.Millisecond
)

// RemoteAuthority is the consent service's key authority, by RPC.
type RemoteAuthority struct {
	client consentv1connect.KeyServiceClient
}

var _ Authority = (*RemoteAuthority)(nil)

// NewRemoteAuthority makes an Authority over a client whose token has the service role.
func NewRemoteAuthority(client consentv1connect.KeyServiceClient) *RemoteAuthority {
	return &RemoteAuthority{client: client}
}

// SubjectKeys implements Authority: as many calls as it takes, each sent
// again while the service is unavailable, which is safe.
func (r *RemoteAuthority) SubjectKeys(ctx context.Context, subjects []string, create bool) (map[string]SubjectKey, error) {
	out := make(map[string]SubjectKey, len(subjects))
	var gone []string
	for start := 0; start < len(subjects); start += maxSubjects {
		asked := subjects[start:min(start+maxSubjects, len(subjects))]
		res, err := r.call(ctx, &consentv1.GetSubjectKeysRequest{Subjects: asked, Create: create})
		if err != nil {
			return nil, err
		}
		for _, k := range res.GetKeys() {
			switch {
			case k.GetDestroyed():
				gone = append(gone, k.GetSubject())
			case len(k.GetKey()) == 32 && k.GetVersion() > 0:
				out[k.GetSubject()] = SubjectKey{Subject: k.GetSubject(), Version: k.GetVersion(), Key: [32]byte(k.GetKey())}
			default:
				return nil, problem.New(problem.Internal, problem.Problem{
					RuleID:  "keys.answer",
					Message: "the key authority answered with a malformed key",
					Fix:     "check that the consent service and this service are of compatible versions",
				})
			}
			clear(k.GetKey())
		}
	}
	if len(gone) > 0 {
		return out, Destroyed(gone...)
	}
	return out, nil
}

func (r *RemoteAuthority) call(ctx context.Context, req *consentv1.GetSubjectKeysRequest) (*consentv1.GetSubjectKeysResponse, error) {
	for attempt := 1; ; attempt++ {
		res, err := r.client.GetSubjectKeys(ctx, req)
		if err == nil {
			return res, nil
		}
		p := authorityProblem(err)
		if !p.Retryable() || attempt == remoteAttempts || ctx.Err() != nil {
			return nil, p
		}
		wait := time.NewTimer(remoteBackoff<<attempt/2 + rand.N(remoteBackoff<<attempt))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil, p
		case <-wait.C:
		}
	}
}

// authorityProblem is what a failed call means to the caller's caller, who
// knows nothing of keys.
func authorityProblem(err error) *problem.Error {
	var p *problem.Error
	if errors.As(err, &p) {
		return p
	}
	kind, fix := problem.Internal, "retry; if it persists give the request id to the operator"
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeResourceExhausted:
		kind, fix = problem.Unavailable, "send the same request again in a moment"
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		fix = "give this service's principal the service role at the consent service"
	}
	return problem.New(kind, problem.Problem{
		RuleID:  "keys.authority",
		Message: "the key authority didn't release a key",
		Fix:     fix,
	}).Because(err)
}
