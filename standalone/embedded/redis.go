package embedded

import (
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Redis is a running store.
type Redis struct {
	address string
	stop    func()
}

// StartRedis starts an empty Redis-protocol store on a free loopback port;
// the views rebuild themselves into it from the ledger.
func StartRedis() (*Redis, error) {
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr(loopback + ":0"); err != nil {
		return nil, fmt.Errorf("embedded: starting Redis: %w", err)
	}
	r := &Redis{address: m.Addr()}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		expire(m, done)
	}()
	r.stop = sync.OnceFunc(func() {
		close(done)
		<-ended
		m.Close()
	})
	return r, nil
}

// expire moves the store's clock, which stands still by itself: keys with a
// time to live would otherwise stay for ever.
func expire(m *miniredis.Miniredis, done <-chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-done:
			return
		case <-ticker.C:
			now := time.Now()
			m.FastForward(now.Sub(last))
			last = now
		}
	}
}

// Address is where clients connect.
func (r *Redis) Address() string { return r.address }

// Stop drops everything. It may be called more than once.
func (r *Redis) Stop() { r.stop() }
