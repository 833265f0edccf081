package views

import "github.com/probity-health/probity/services/problem"

// Kind is what a key holds.
type Kind uint8

// Kinds of keys. Nothing is what an absent key holds; nothing empty is kept.
const (
	Nothing   Kind = iota
	Hash           // fields with values
	SortedSet      // members with scores, ordered by score, then name
	MemberSet      // members
	String         // one value
)

// String is the kind's name in Redis.
func (k Kind) String() string {
	return [...]string{"none", "hash", "zset", "set", "string"}[k]
}

// Command is what an Op does. The names are Redis', and so is the meaning.
type Command uint8

// Commands of a projection. A store knows these and no others.
const (
	HSET Command = iota + 1
	HDEL
	HINCRBY
	ZADD
	ZREM
	SADD
	SREM
	SET
	INCRBY
	DEL
)

// String is the command's name in Redis.
func (c Command) String() string {
	return [...]string{"", "HSET", "HDEL", "HINCRBY", "ZADD", "ZREM", "SADD", "SREM", "SET", "INCRBY", "DEL"}[c]
}

// Kind is the kind that the command's key has, or gets; DEL takes any, which is Nothing.
func (c Command) Kind() Kind {
	return [...]Kind{Nothing, Hash, Hash, Hash, SortedSet, SortedSet, MemberSet, MemberSet, String, String, Nothing}[c]
}

// Op is one command of a projection; make it with the functions below. Its
// key is relative to the view.
type Op struct {
	Command Command
	Key     string
	// Name is the field or member; empty for SET, INCRBY and DEL.
	Name string
	// Value of HSET's field, or of SET.
	Value string
	// N is ZADD's score, or what HINCRBY and INCRBY add.
	N int64
	// More fields with their values (HSET), fields (HDEL) or members (ZREM, SADD, SREM).
	More []string
	// A Command of 0 can't be applied; Value says why.
}

// Each calls f with every field or member, a field of HSET with its value.
func (o *Op) Each(f func(name, value string)) {
	f(o.Name, o.Value)
	if o.Command == HSET {
		for i := 0; i+1 < len(o.More); i += 2 {
			f(o.More[i], o.More[i+1])
		}
		return
	}
	for _, name := range o.More {
		f(name, "")
	}
}

// HSet sets fields of a hash, given as field, value, field, value.
func HSet(key string, fields ...string) Op {
	if len(fields) < 2 || len(fields)%2 != 0 {
		return Op{Key: key, Value: "HSET: a field without a value"}
	}
	return Op{Command: HSET, Key: key, Name: fields[0], Value: fields[1], More: rest(fields[2:])}
}

// HDel deletes fields of a hash.
func HDel(key string, fields ...string) Op { return several(HDEL, key, fields) }

// HIncr adds n to a field of a hash, which starts at 0.
func HIncr(key, field string, n int64) Op { return Op{Command: HINCRBY, Key: key, Name: field, N: n} }

// ZAdd puts a member into a sorted set, or moves it. A score is exact up to 2⁵³.
func ZAdd(key string, score int64, member string) Op {
	return Op{Command: ZADD, Key: key, Name: member, N: score}
}

// ZRem takes members out of a sorted set.
func ZRem(key string, members ...string) Op { return several(ZREM, key, members) }

// SAdd puts members into a set.
func SAdd(key string, members ...string) Op { return several(SADD, key, members) }

// SRem takes members out of a set.
func SRem(key string, members ...string) Op { return several(SREM, key, members) }

// Set sets a string.
func Set(key, value string) Op { return Op{Command: SET, Key: key, Value: value} }

// Incr adds n to a string's integer, which starts at 0.
func Incr(key string, n int64) Op { return Op{Command: INCRBY, Key: key, N: n} }

// Del deletes a key of any kind.
func Del(key string) Op { return Op{Command: DEL, Key: key} }

func several(c Command, key string, names []string) Op {
	if len(names) == 0 {
		return Op{Key: key, Value: c.String() + ": the number of arguments is out of bounds"}
	}
	return Op{Command: c, Key: key, Name: names[0], More: rest(names[1:])}
}

// rest copies, so that the caller's arguments need not be on the heap for it.
func rest(more []string) []string {
	if len(more) == 0 {
		return nil
	}
	return append([]string(nil), more...)
}

// Bounds of a projection's commands. They are generous for ids, codes and
// amounts, and too small for a document that doesn't belong into a view.
const (
	maxKey       = 256
	maxValue     = 16 << 10
	maxArgs      = 256
	maxCommitOps = 10_000
)

// check refuses a command that a store would refuse or that breaks a bound.
func (o *Op) check() error {
	switch {
	case o.Command == 0:
		return problem.Invalidf("views.op", "", "no command: %s", o.Value)
	case o.Key == "" || len(o.Key) > maxKey:
		return o.refused("the key's length is out of bounds")
	case len(o.More)+2 > maxArgs:
		return o.refused("the number of arguments is out of bounds")
	case len(o.Name) > maxValue || len(o.Value) > maxValue:
		return o.refused("a value is too long")
	}
	for _, a := range o.More {
		if len(a) > maxValue {
			return o.refused("a value is too long")
		}
	}
	return nil
}

func (o *Op) refused(what string) error {
	return problem.Invalidf("views.op", "", "%s: %s", o.Command, what)
}
