package assembly

import (
	"context"
	"path"

	"connectrpc.com/connect"

	"github.com/probity-health/probity/services/identity"
)

// authorized asks the policy set about every call of a service whose
// resources have no owner, so that the RPC's name and the caller's roles
// decide.
type authorized struct {
	authorizer *identity.Authorizer
	kind       identity.Resource
}

func (a authorized) check(ctx context.Context, spec connect.Spec) error {
	return a.authorizer.Authorize(ctx, path.Base(spec.Procedure), a.kind)
}

// WrapUnary implements connect.Interceptor.
func (a authorized) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := a.check(ctx, req.Spec()); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (a authorized) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := a.check(ctx, conn.Spec()); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// WrapStreamingClient implements connect.Interceptor; this is no client's.
func (a authorized) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
