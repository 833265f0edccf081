package viewstest

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/probity-health/probity/services/views"
)

// lossy loses the answers of batches that the store has applied, every n-th.
type lossy struct {
	views.Store
	n    int64
	seen atomic.Int64
	lost atomic.Int64
}

func (l *lossy) Apply(ctx context.Context, b views.Batch) (views.Applied, error) {
	out, err := l.Store.Apply(ctx, b)
	if err == nil && l.seen.Add(1)%l.n == 0 {
		l.lost.Add(1)
		return views.Applied{}, views.Away(&net.OpError{Op: "read", Err: errors.New("injected: the answer was lost")})
	}
	return out, err
}

// absent is a store that can't be reached until it is told to be back.
type absent struct {
	views.Store
	back atomic.Bool
}

func (a *absent) away() error {
	if a.back.Load() {
		return nil
	}
	return views.Away(&net.OpError{Op: "dial", Err: errors.New("injected: connection refused")})
}

func (a *absent) Shards(ctx context.Context, view string) ([]uint32, error) {
	if err := a.away(); err != nil {
		return nil, err
	}
	return a.Store.Shards(ctx, view)
}

func (a *absent) AddShards(ctx context.Context, view string, shards []uint32) error {
	if err := a.away(); err != nil {
		return err
	}
	return a.Store.AddShards(ctx, view, shards)
}

func (a *absent) Heads(ctx context.Context, view string, shards []uint32) ([]views.Head, error) {
	if err := a.away(); err != nil {
		return nil, err
	}
	return a.Store.Heads(ctx, view, shards)
}

func (a *absent) GoLive(ctx context.Context, b views.Build) (uint32, bool, error) {
	if err := a.away(); err != nil {
		return 0, false, err
	}
	return a.Store.GoLive(ctx, b)
}

func (a *absent) Apply(ctx context.Context, b views.Batch) (views.Applied, error) {
	if err := a.away(); err != nil {
		return views.Applied{}, err
	}
	return a.Store.Apply(ctx, b)
}

func (a *absent) Offsets(ctx context.Context, builds ...views.Build) ([]uint64, error) {
	if err := a.away(); err != nil {
		return nil, err
	}
	return a.Store.Offsets(ctx, builds...)
}
