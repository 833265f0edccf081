package embedded_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/standalone/embedded"
)

func TestRedisRunsScripts(t *testing.T) {
	ctx := testContext(t)
	r, err := embedded.StartRedis()
	require.NoError(t, err)
	defer r.Stop()
	client := redis.NewClient(&redis.Options{Addr: r.Address()})
	defer client.Close()

	moved, err := redis.NewScript(`
		if tonumber(redis.call('GET', KEYS[1]) or '-1') ~= tonumber(ARGV[1]) then return 0 end
		redis.call('SET', KEYS[1], ARGV[2]); return 1`).Run(ctx, client, []string{"offset"}, -1, 7).Int()
	require.NoError(t, err)
	require.Equal(t, 1, moved, "a view's offset check runs")

	r.Stop()
	r.Stop()
}
