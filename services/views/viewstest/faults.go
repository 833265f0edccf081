package viewstest

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// lossy loses answers of scripts that Redis has run, every n-th.
type lossy struct {
	n    int64
	seen atomic.Int64
	lost atomic.Int64
}

func (l *lossy) DialHook(next redis.DialHook) redis.DialHook { return next }
func (l *lossy) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *lossy) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if strings.HasPrefix(cmd.Name(), "eval") && err == nil && l.seen.Add(1)%l.n == 0 {
			l.lost.Add(1)
			cmd.SetErr(&net.OpError{Op: "read", Err: errors.New("injected: the answer was lost")})
			return cmd.Err()
		}
		return err
	}
}

// absent makes every command fail until it is told that Redis is back.
type absent struct{ back atomic.Bool }

var errAbsent = &net.OpError{Op: "dial", Err: errors.New("injected: connection refused")}

func (a *absent) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a *absent) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !a.back.Load() {
			cmd.SetErr(errAbsent)
			return errAbsent
		}
		return next(ctx, cmd)
	}
}

func (a *absent) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !a.back.Load() {
			for _, cmd := range cmds {
				cmd.SetErr(errAbsent)
			}
			return errAbsent
		}
		return next(ctx, cmds)
	}
}
