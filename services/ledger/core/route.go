package core

import (
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/problem"
)

// Route returns the shard of a routing key: the first eight bytes of the
// key's SHA-256 as a big-endian number, modulo the shard count. The rule is
// part of the ledger: changing it would split streams.
func Route(key string, shards uint32) uint32 {
	if shards == 1 {
		return 0
	}
	sum := sha256.Sum256([]byte(key))
	return uint32(binary.BigEndian.Uint64(sum[:8]) % uint64(shards))
}

// RecordKey is the Kafka record key of a routing key: a hash bound to the
// ledger's origin, so that a topic reveals no key and two ledgers share none.
func RecordKey(origin, routingKey string) []byte {
	var room [512]byte
	b := append(append(append(append(room[:0], "probity record key v1\x00"...), origin...), 0), routingKey...)
	sum := sha256.Sum256(b)
	return append([]byte(nil), sum[:16]...)
}

// Token is the consistency token of a position: "v1:<log>/<shard>/<index>".
func Token(log string, shard uint32, index uint64) string {
	b := append(append(make([]byte, 0, 64), "v1:"...), log...)
	b = strconv.AppendUint(append(b, '/'), uint64(shard), 10)
	return string(strconv.AppendUint(append(b, '/'), index, 10))
}

// ParseToken reads a token.
func ParseToken(s string) (log string, shard uint32, index uint64, err error) {
	rest, ok := strings.CutPrefix(s, "v1:")
	f := strings.Split(rest, "/")
	if ok && len(f) == 3 && ValidLog(f[0]) {
		n, err1 := strconv.ParseUint(f[1], 10, 32)
		i, err2 := strconv.ParseUint(f[2], 10, 63)
		if err1 == nil && err2 == nil && Token(f[0], uint32(n), i) == s {
			return f[0], uint32(n), i, nil
		}
	}
	return "", 0, 0, problem.Invalidf("ledger.token", "min_token", "a consistency token has the form v1:log/shard/index")
}
