package identity

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

const (
	// beliefLasts bounds how long a token is taken for what it was when its
	// signature was checked: little beside keysFresh, for which a key that its
	// issuer withdraws may go on being believed. Expiry is checked each time.
	beliefLasts = 10 * time.Second
	// maxBelieved tokens are remembered, about half a KiB each. Only tokens
	// whose signature is right get in, so a stranger can't crowd others out.
	maxBelieved = 1 << 12
)

// believed remembers tokens whose signature, issuer and audience were found
// right. Checking a signature costs some hundred times what finding it here
// does, and a service sends the same token for minutes.
type believed struct {
	mu     sync.Mutex
	tokens map[[sha256.Size]byte]belief // guarded by mu
}

type belief struct {
	claims tokenClaims
	until  time.Time
}

func (b *believed) get(token [sha256.Size]byte, now time.Time) (tokenClaims, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, ok := b.tokens[token]
	if ok && !now.Before(known.until) {
		delete(b.tokens, token)
		return tokenClaims{}, false
	}
	return known.claims, ok
}

func (b *believed) put(token [sha256.Size]byte, c tokenClaims, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens == nil {
		b.tokens = map[[sha256.Size]byte]belief{}
	}
	if len(b.tokens) >= maxBelieved {
		for k := range b.tokens { // any will do: forgetting costs one more check
			delete(b.tokens, k)
			break
		}
	}
	b.tokens[token] = belief{claims: c, until: now.Add(beliefLasts)}
}

// principal is the token's, in slices of its own.
func (c tokenClaims) principal() Principal {
	return Principal{Subject: c.Subject, Org: c.Org, Roles: slices.Clone(c.Roles), Payers: slices.Clone(c.Payers)}
}
