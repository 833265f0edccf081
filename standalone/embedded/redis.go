package embedded

import (
	"fmt"
	"sync"

	"github.com/alicebob/miniredis/v2"
)

// Redis is a running store.
type Redis struct {
	address string
	stop    func()
}

// StartRedis starts an empty Redis-protocol store on a free loopback port;
// the views rebuild themselves into it from the ledger. Its clock stands still:
// no view gives a key a time to live.
func StartRedis() (*Redis, error) {
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr(loopback + ":0"); err != nil {
		return nil, fmt.Errorf("embedded: starting Redis: %w", err)
	}
	r := &Redis{address: m.Addr()}
	r.stop = sync.OnceFunc(m.Close)
	return r, nil
}

// Address is where clients connect.
func (r *Redis) Address() string { return r.address }

// Stop drops everything. It may be called more than once.
func (r *Redis) Stop() { r.stop() }
