package redisstore

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
	last := map[string]int{} // by key: its newest command in whole.commands
	var list []byte
	for _, c := range changes {
		if c.reason != "" {
			return change{}, "", false
		}
		list = append(strconv.AppendUint(list, c.index, 10), ',')
		for _, o := range c.commands {
			if i, seen := last[o.key]; seen && join(&whole.commands[i], o) {
				continue
			}
			last[o.key] = len(whole.commands)
			// The argument list is the projection's until it is joined to.
			o.args = slices.Clip(o.args)
			whole.commands = append(whole.commands, o)
		}
	}
	whole.index = changes[0].index
	return whole, string(list), true
}

// join adds next, a command on the same key, to o, where both are one.
func join(o *command, next command) bool {
	if o.name != next.name {
		return false
	}
	switch o.name {
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
