package views

import (
	"slices"
	"strconv"
)

// maxMerged bounds a merged command: Lua passes arguments on its stack.
const maxMerged = 1000

// merge turns the changes of several commits into one that leaves Redis in the
// same state, and lists their indexes, comma-separated. Every command touches
// one key, so only the order of commands on a key counts, and neighbours there
// are joined. A single change, or a parked one among them, is left as it is.
func merge(changes []change) (whole change, indexes string, ok bool) {
	if len(changes) < 2 {
		return change{}, "", false
	}
	last := map[string]int{} // by key: its newest command in whole.ops
	var list []byte
	for _, c := range changes {
		if c.reason != "" {
			return change{}, "", false
		}
		list = append(strconv.AppendUint(list, c.index, 10), ',')
		for _, o := range c.ops {
			if i, seen := last[o.key]; seen && join(&whole.ops[i], o) {
				continue
			}
			last[o.key] = len(whole.ops)
			// The argument list is the projection's until it is joined to.
			o.args = slices.Clip(o.args)
			whole.ops = append(whole.ops, o)
		}
	}
	whole.index = changes[0].index
	return whole, string(list), true
}

// join adds next, a command on the same key, to o, where both are one.
func join(o *Op, next Op) bool {
	if o.cmd != next.cmd {
		return false
	}
	switch o.cmd {
	case "HSET", "HDEL", "ZADD", "ZREM", "SADD", "SREM":
		if len(o.args)+len(next.args) > maxMerged {
			return false
		}
		o.args = append(o.args, next.args...)
		return true
	case "SET":
		o.args = next.args
		return true
	case "DEL":
		return true
	}
	// Sums aren't formed here: Redis decides whether they overflow.
	return false
}
