package redisstore

import (
	"context"
	"fmt"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/views"
)

// Given the changes of any commits, then merged they leave Redis as they
// would one by one.
func TestMergedIsTheSame(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	member := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	number := rapid.Int64Range(-3, 3)
	// A key has one type throughout, as a projection's keys do.
	op := rapid.Custom(func(t *rapid.T) command {
		o := func() views.Op {
			n := rapid.SampledFrom([]string{"1", "2"}).Draw(t, "key")
			m := member.Draw(t, "member")
			switch rapid.IntRange(0, 8).Draw(t, "command") {
			case 0:
				return views.HSet("hash"+n, m, member.Draw(t, "value"))
			case 1:
				return views.HDel("hash"+n, m)
			case 2:
				return views.HIncr("sums"+n, m, number.Draw(t, "n"))
			case 3:
				return views.ZAdd("zset"+n, number.Draw(t, "score"), m)
			case 4:
				return views.ZRem("zset"+n, m)
			case 5:
				return views.SAdd("set"+n, m)
			case 6:
				return views.SRem("set"+n, m)
			case 7:
				return views.Set("string"+n, m)
			default:
				return views.Del(rapid.SampledFrom([]string{"hash", "zset", "set", "string", "sums"}).Draw(t, "kind") + n)
			}
		}()
		return commandOf(&o)
	})
	rapid.Check(t, func(t *rapid.T) {
		var changes []change
		for i := range rapid.IntRange(2, 6).Draw(t, "commits") {
			changes = append(changes, change{index: uint64(i), commands: rapid.SliceOfN(op, 0, 5).Draw(t, "ops")})
		}
		state := func(ops []command) string {
			server.FlushAll()
			for _, o := range ops {
				args := []any{o.name, o.key}
				for _, a := range o.args {
					args = append(args, a)
				}
				if err := client.Do(context.Background(), args...).Err(); err != nil {
					t.Fatalf("%s: %v", o.name, err)
				}
			}
			return server.Dump()
		}
		var apart []command
		for _, c := range changes {
			apart = append(apart, c.commands...)
		}
		want := state(apart)
		whole, indexes, ok := merge(changes)
		if !ok || len(whole.commands) > len(apart) {
			t.Fatalf("not merged: %v, %d commands of %d", ok, len(whole.commands), len(apart))
		}
		if got := state(whole.commands); got != want {
			t.Fatalf("merged %s:\n%s\none by one:\n%s", indexes, got, want)
		}
	})
}

// Given many members of one index, then one command carries them, to a bound.
func TestMergeJoins(t *testing.T) {
	var changes []change
	for i := range 700 {
		changes = append(changes, change{index: uint64(i), commands: changesOf([]views.Change{{Ops: []views.Op{views.ZAdd("all", int64(i), fmt.Sprint(i)), views.HSet(fmt.Sprint("row:", i), "r", "x")}}})[0].commands})
	}
	whole, _, ok := merge(changes)
	require.True(t, ok)
	require.Len(t, whole.commands, 700+2, "1,400 arguments in commands of at most 1,000")

	changes[3].reason = "parked"
	_, _, ok = merge(changes)
	require.False(t, ok, "a parked commit is marked by itself")
}
