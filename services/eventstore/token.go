package eventstore

import (
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/problem"
)

// Token returns the consistency token of a position: "v1:<log>/<shard>/<index>".
// A reader that has applied the position's commit has seen the token.
func (p Position) Token() string {
	return "v1:" + p.Log + "/" + strconv.FormatUint(uint64(p.Shard), 10) + "/" + strconv.FormatUint(p.Index, 10)
}

// ParseToken reads a consistency token. An empty token is the zero Position
// and false: nothing to wait for. A token comes from a caller, so anything
// but the exact form is refused as Invalid.
func ParseToken(token string) (Position, bool, error) {
	if token == "" {
		return Position{}, false, nil
	}
	malformed := problem.Invalidf("eventstore.token", "token", "the consistency token is malformed; pass the one that the write returned, or none")
	rest, ok := strings.CutPrefix(token, "v1:")
	if !ok || len(token) > 80 {
		return Position{}, false, malformed
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 || !logName(parts[0]) {
		return Position{}, false, malformed
	}
	shard, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return Position{}, false, malformed
	}
	index, err := strconv.ParseUint(parts[2], 10, 63)
	if err != nil {
		return Position{}, false, malformed
	}
	p := Position{Log: parts[0], Shard: uint32(shard), Index: index}
	// One position has one token: "+1", "01" and the like are refused.
	if p.Token() != token {
		return Position{}, false, malformed
	}
	return p, true, nil
}

// logName tells whether s is a log's name: 1 to 32 of a-z (ledger.proto).
func logName(s string) bool {
	if len(s) == 0 || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return false
		}
	}
	return true
}
