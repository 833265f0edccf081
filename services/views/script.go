package views

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/probity-health/probity/services/problem"
)

// applyScript is the one writer of a view. Redis runs it alone, but doesn't
// undo it when it fails half way, so what can fail is looked at first (the
// keys' types), and what fails all the same is parked rather than tried again:
// a repeated increment would be a wrong sum.
//
//	KEYS: offset, meta, parked, then data keys
//	ARGV: from, next, version, generation, the indexes of a merged batch or "",
//	      then for each commit index, reason ("" unless it is parked), number of commands,
//	      then for each command number of its data key, type it expects ("" is any), name,
//	      number of arguments, arguments
//
// A merged batch is sent as one commit (see merge). It is all or nothing, so
// one that overlaps what is stored is answered {"apart"}.
//
// Answers {"ok", offset, commits applied}, {"gap", offset}, {"superseded", offset},
// {"apart", offset} or {"clash", index}: the commit at index expects another
// type than the key has.
var applyScript = redis.NewScript(`
local stored = tonumber(redis.call('GET', KEYS[1]) or '0')
local from, next, version = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if (redis.call('HGET', KEYS[2], 'gen') or '0') ~= ARGV[4] then
  return {'gap', stored}
end
if stored == 0 and tonumber(redis.call('HGET', KEYS[2], 'live') or '0') > version then
  return {'superseded', stored}
end
if stored < from then
  return {'gap', stored}
end
if stored >= next then
  return {'ok', stored, 0}
end

local merged = ARGV[5]
if merged ~= '' and stored ~= from then
  return {'apart', stored}
end

local types, commits, at = {}, {}, 6
while at <= #ARGV do
  local commit = {index = tonumber(ARGV[at]), reason = ARGV[at + 1], ops = {}}
  local count = tonumber(ARGV[at + 2])
  at = at + 3
  for i = 1, count do
    local key, kind, n = KEYS[3 + tonumber(ARGV[at])], ARGV[at + 1], tonumber(ARGV[at + 3])
    local op = {ARGV[at + 2], key}
    for a = 1, n do op[2 + a] = ARGV[at + 3 + a] end
    at = at + 4 + n
    if commit.index >= stored then
      if kind ~= '' then
        local have = types[key] or redis.call('TYPE', key).ok
        if have ~= 'none' and have ~= kind then
          return {'clash', commit.index}
        end
        types[key] = kind
      else
        types[key] = 'none'
      end
      commit.ops[i] = op
    end
  end
  if commit.index >= stored then commits[#commits + 1] = commit end
end

for _, commit in ipairs(commits) do
  local reason = commit.reason
  for _, op in ipairs(commit.ops) do
    local answer = redis.pcall(unpack(op))
    if type(answer) == 'table' and answer.err then reason = 'partly applied: ' .. op[1] end
  end
  if reason ~= '' and merged ~= '' then
    for index in string.gmatch(merged, '%d+') do redis.call('HSET', KEYS[3], index, reason) end
  elseif reason ~= '' then
    redis.call('HSET', KEYS[3], string.format('%.0f', commit.index), reason)
  end
end
redis.call('SET', KEYS[1], ARGV[2])
return {'ok', next, #commits}
`)

// liveScript switches a shard's readers to a version, never back, and never
// to a generation other than the one that was built.
//
//	KEYS: meta; ARGV: version, generation. Answers the version that is live
//	now, or -1 when the generation is another.
var liveScript = redis.NewScript(`
if (redis.call('HGET', KEYS[1], 'gen') or '0') ~= ARGV[2] then return -1 end
local live = tonumber(redis.call('HGET', KEYS[1], 'live') or '0')
if live >= tonumber(ARGV[1]) then return live end
redis.call('HSET', KEYS[1], 'live', ARGV[1])
return tonumber(ARGV[1])
`)

// change is what one commit does to a view.
type change struct {
	index  uint64
	reason string // why it is parked; then ops is empty
	ops    []Op
}

// applied is the script's answer.
type applied struct {
	verdict string
	offset  uint64 // of a clash: the commit's index
	commits int64
}

// apply runs the script for the commits from..next of one shard: merged where
// that is the same, for Redis runs one command of a hundred members far sooner
// than a hundred of one.
func (v *View) apply(ctx context.Context, b build, from, next uint64, changes []change, known kinds) (applied, error) {
	if whole, indexes, ok := merge(changes); ok {
		out, err := v.run(ctx, b, from, next, indexes, []change{whole}, known)
		switch {
		case err != nil:
			return applied{}, err
		case out.verdict == "ok":
			out.commits = min(out.commits, 1) * int64(len(changes))
			return out, nil
		case out.verdict != "apart" && out.verdict != "clash":
			return out, nil
		}
	}
	return v.run(ctx, b, from, next, "", changes, known)
}

// kinds are the types of keys by their whole name.
type kinds map[string]string

// maxKinds bounds what a runner knows of keys; it begins anew then.
const maxKinds = 1 << 14

// learn notes the types that a script has left behind, where it applied every
// one of the changes.
func (k kinds) learn(changes []change, name map[string]string) {
	if len(k) > maxKinds {
		clear(k)
	}
	for _, c := range changes {
		for _, o := range c.ops {
			if o.kind == "" {
				delete(k, name[o.key])
			} else {
				k[name[o.key]] = o.kind
			}
		}
	}
}

// alike are the types that changes take keys for, "" where they take one for several.
func alike(changes []change) map[string]string {
	out := map[string]string{}
	for _, c := range changes {
		for _, o := range c.ops {
			if first, ok := out[o.key]; ok && first != o.kind {
				out[o.key] = ""
			} else if !ok {
				out[o.key] = o.kind
			}
		}
	}
	return out
}

func (v *View) run(ctx context.Context, b build, from, next uint64, merged string, changes []change, known kinds) (applied, error) {
	keys := []string{v.offset(b), v.meta(b.shard), v.parked(b)}
	numbers, names, kind := map[string]string{}, map[string]string{}, alike(changes)
	args := []any{from, next, b.version, b.generation, merged}
	for _, c := range changes {
		args = append(args, c.index, c.reason, len(c.ops))
		for _, o := range c.ops {
			number, ok := numbers[o.key]
			if !ok {
				names[o.key] = v.data(b, o.key)
				keys = append(keys, names[o.key])
				number = strconv.Itoa(len(keys) - 3)
				numbers[o.key] = number
			}
			expected := o.kind
			if kind[o.key] == o.kind && known[names[o.key]] == o.kind {
				expected = "" // no need to look again
			}
			args = append(args, number, expected, o.cmd, len(o.args))
			for _, a := range o.args {
				args = append(args, a)
			}
		}
	}
	answer, err := applyScript.Run(ctx, v.client, keys, args...).Slice()
	if err != nil {
		return applied{}, away(err)
	}
	var out applied
	if len(answer) >= 2 {
		out.verdict, _ = answer[0].(string)
		n, _ := answer[1].(int64)
		out.offset = uint64(max(n, 0))
	}
	if len(answer) >= 3 {
		out.commits, _ = answer[2].(int64)
	}
	if out.verdict == "" {
		return applied{}, fmt.Errorf("views: the script answered with %d values", len(answer))
	}
	if out.verdict == "ok" && out.commits == int64(len(changes)) {
		known.learn(changes, names)
	}
	return out, nil
}

// away says that Redis can't be reached, or can't serve.
func away(cause error) error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "views.unavailable",
		Message: "the lists are not available just now",
		Fix:     "ask again in a moment; claims are still accepted and decided",
	}).Because(cause)
}
