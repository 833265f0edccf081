package identity

import (
	"strconv"
	"strings"
	"sync"
)

// question is all that an answer of the policy set depends on: the set itself
// never changes while a process runs.
type question struct {
	subject, org, roles, payers, action string
	resource                            Resource
}

// listed tells lists apart whatever their items hold.
func listed[T ~string](items []T) string {
	var b strings.Builder
	for _, item := range items {
		b.WriteString(strconv.Itoa(len(item)))
		b.WriteByte(':')
		b.WriteString(string(item))
	}
	return b.String()
}

// maxAnswered bounds what is remembered; it begins anew then.
const maxAnswered = 4096

// answered remembers answers. The zero value is ready to use.
type answered struct {
	mu sync.RWMutex // guards of
	of map[question]Decision
}

func (a *answered) get(q question) (Decision, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	d, ok := a.of[q]
	return d, ok
}

func (a *answered) put(q question, d Decision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil || len(a.of) >= maxAnswered {
		a.of = map[question]Decision{}
	}
	a.of[q] = d
}
