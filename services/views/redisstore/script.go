package redisstore

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/probity-health/probity/services/views"
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

// command is one of Redis'.
type command struct {
	name, kind string // kind is the type that the key has, or gets; "" is any
	key        string
	args       []string
}

// commandOf translates an Op.
func commandOf(o *views.Op) command {
	c := command{name: o.Command.String(), key: o.Key}
	if kind := o.Command.Kind(); kind != views.Nothing {
		c.kind = kind.String()
	}
	number := strconv.FormatInt(o.N, 10)
	switch o.Command {
	case views.HSET:
		c.args = append([]string{o.Name, o.Value}, o.More...)
	case views.HINCRBY:
		c.args = []string{o.Name, number}
	case views.ZADD:
		c.args = []string{number, o.Name}
	case views.HDEL, views.ZREM, views.SADD, views.SREM:
		c.args = append([]string{o.Name}, o.More...)
	case views.SET:
		c.args = []string{o.Value}
	case views.INCRBY:
		c.args = []string{number}
	case views.DEL:
	}
	return c
}

// change is what one commit does.
type change struct {
	index    uint64
	reason   string // why it is parked; then commands is empty
	commands []command
}

func changesOf(in []views.Change) []change {
	out := make([]change, len(in))
	for i, c := range in {
		out[i] = change{index: c.Index, reason: c.Reason, commands: make([]command, len(c.Ops))}
		for n := range c.Ops {
			out[i].commands[n] = commandOf(&c.Ops[n])
		}
	}
	return out
}

// Apply implements views.Store: merged where that is the same, for Redis runs
// one command of a hundred members far sooner than a hundred of one.
func (s *Store) Apply(ctx context.Context, b views.Batch) (views.Applied, error) {
	changes := changesOf(b.Changes)
	if whole, indexes, ok := merge(changes); ok {
		answer, err := s.run(ctx, b, indexes, []change{whole})
		switch {
		case err != nil:
			return views.Applied{}, err
		case answer.verdict == "ok":
			return views.Applied{Verdict: views.Done, Commits: min(answer.commits, 1) * len(changes)}, nil
		case answer.verdict != "apart" && answer.verdict != "clash":
			return answer.applied()
		}
	}
	answer, err := s.run(ctx, b, "", changes)
	if err != nil {
		return views.Applied{}, err
	}
	return answer.applied()
}

// answer is the script's.
type answer struct {
	verdict string
	number  uint64 // the stored offset; of a clash the commit's index
	commits int
}

func (a answer) applied() (views.Applied, error) {
	switch a.verdict {
	case "ok":
		return views.Applied{Verdict: views.Done, Commits: a.commits}, nil
	case "gap":
		return views.Applied{Verdict: views.Gap}, nil
	case "superseded":
		return views.Applied{Verdict: views.Superseded}, nil
	case "clash":
		return views.Applied{Verdict: views.Clash, Index: a.number}, nil
	}
	return views.Applied{}, fmt.Errorf("views: the script answered %q", a.verdict)
}

// kinds are the types of keys by their whole name, as far as the script has
// left them behind. Only it writes a build's keys, so they stay what they are.
type kinds map[string]string

// maxKinds bounds what is known of keys; it begins anew then.
const maxKinds = 1 << 14

// learn notes the types that a script has left behind, where it applied every
// one of the changes.
func (k kinds) learn(changes []change, name map[string]string) {
	if len(k) > maxKinds {
		clear(k)
	}
	for _, c := range changes {
		for _, o := range c.commands {
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
		for _, o := range c.commands {
			if first, ok := out[o.key]; ok && first != o.kind {
				out[o.key] = ""
			} else if !ok {
				out[o.key] = o.kind
			}
		}
	}
	return out
}

func (s *Store) run(ctx context.Context, b views.Batch, merged string, changes []change) (answer, error) {
	keys := []string{offsetKey(b.Build), metaKey(b.View, b.Shard), parkedKey(b.Build)}
	data := dataKey(b.Build, "")
	numbers, names, kind := map[string]string{}, map[string]string{}, alike(changes)
	args := []any{b.From, b.Next, b.Version, b.Generation, merged}
	s.mu.Lock()
	for _, c := range changes {
		args = append(args, c.index, c.reason, len(c.commands))
		for _, o := range c.commands {
			number, ok := numbers[o.key]
			if !ok {
				names[o.key] = data + o.key
				keys = append(keys, names[o.key])
				number = strconv.Itoa(len(keys) - 3)
				numbers[o.key] = number
			}
			expected := o.kind
			if kind[o.key] == o.kind && s.known[names[o.key]] == o.kind {
				expected = "" // no need to look again
			}
			args = append(args, number, expected, o.name, len(o.args))
			for _, a := range o.args {
				args = append(args, a)
			}
		}
	}
	s.mu.Unlock()
	values, err := applyScript.Run(ctx, s.client, keys, args...).Slice()
	if err != nil {
		return answer{}, views.Away(err)
	}
	var out answer
	if len(values) >= 2 {
		out.verdict, _ = values[0].(string)
		n, _ := values[1].(int64)
		out.number = uint64(max(n, 0))
	}
	if len(values) >= 3 {
		n, _ := values[2].(int64)
		out.commits = int(n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case out.verdict == "ok" && out.commits == len(changes):
		s.known.learn(changes, names)
	case out.verdict == "gap":
		clear(s.known) // Redis may have lost them
	}
	return out, nil
}
