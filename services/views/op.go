package views

import (
	"strconv"

	"github.com/probity-health/probity/services/problem"
)

// Op is one Redis command of a projection. Its key is relative to the view;
// the commands are those below and no others, because the script must know
// the type that each expects before it applies the first.
type Op struct {
	cmd  string
	kind string // Redis type the key has, or gets; empty is any
	key  string
	args []string
}

// HSet sets fields of a hash, given as field, value, field, value.
func HSet(key string, fields ...string) Op { return Op{"HSET", "hash", key, fields} }

// HDel deletes fields of a hash.
func HDel(key string, fields ...string) Op { return Op{"HDEL", "hash", key, fields} }

// HIncr adds n to a field of a hash, which starts at 0.
func HIncr(key, field string, n int64) Op {
	return Op{"HINCRBY", "hash", key, []string{field, strconv.FormatInt(n, 10)}}
}

// ZAdd puts a member into a sorted set, or moves it. A score is exact up to 2⁵³.
func ZAdd(key string, score int64, member string) Op {
	return Op{"ZADD", "zset", key, []string{strconv.FormatInt(score, 10), member}}
}

// ZRem takes members out of a sorted set.
func ZRem(key string, members ...string) Op { return Op{"ZREM", "zset", key, members} }

// SAdd puts members into a set.
func SAdd(key string, members ...string) Op { return Op{"SADD", "set", key, members} }

// SRem takes members out of a set.
func SRem(key string, members ...string) Op { return Op{"SREM", "set", key, members} }

// Set sets a string.
func Set(key, value string) Op { return Op{"SET", "string", key, []string{value}} }

// Incr adds n to a string's integer, which starts at 0.
func Incr(key string, n int64) Op {
	return Op{"INCRBY", "string", key, []string{strconv.FormatInt(n, 10)}}
}

// Del deletes a key of any type.
func Del(key string) Op { return Op{"DEL", "", key, nil} }

// Bounds of a projection's commands. They are generous for ids, codes and
// amounts, and too small for a document that doesn't belong into a view.
const (
	maxKey       = 256
	maxValue     = 16 << 10
	maxArgs      = 256
	maxCommitOps = 10_000
)

// check refuses a command that Redis would refuse or that breaks a bound.
func (o Op) check() error {
	bad := func(what string) error {
		return problem.Invalidf("views.op", "", "%s: %s", o.cmd, what)
	}
	if o.key == "" || len(o.key) > maxKey {
		return bad("the key's length is out of bounds")
	}
	if len(o.args) > maxArgs || (len(o.args) == 0 && o.cmd != "DEL") {
		return bad("the number of arguments is out of bounds")
	}
	if o.cmd == "HSET" && len(o.args)%2 != 0 {
		return bad("a field without a value")
	}
	for _, a := range o.args {
		if len(a) > maxValue {
			return bad("a value is too long")
		}
	}
	return nil
}
