package ledger

import (
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
)

// FitsSchema tells quickly of appends that they satisfy their schema
// (ledger.proto): each is some ten rules, and asking the schema itself takes
// longer than applying the commit. It may say no to what the schema takes:
// lengths are counted in bytes here and in characters there.
func FitsSchema(r *ledgerv1.AppendBatchRequest) bool {
	if n := len(r.GetAppends()); n < 1 || n > 1000 || len(r.GetForwardedBy()) > 200 {
		return false
	}
	for _, a := range r.GetAppends() {
		if !fitsAppend(a) {
			return false
		}
	}
	return true
}

func fitsAppend(a *ledgerv1.AppendRequest) bool {
	if !named(a.GetLog(), 32, false) || !filled(a.GetRoutingKey()) || !filled(a.GetRequestId()) ||
		len(a.GetCausation()) > 200 || len(a.GetActor()) > 200 || len(a.GetTraceparent()) > 100 ||
		len(a.GetWrites()) < 1 || len(a.GetWrites()) > 100 {
		return false
	}
	for _, w := range a.GetWrites() {
		if n := len(w.GetEvents()); n < 1 || n > 1000 || w.GetExpectedRevision() < -2 || !fitsStream(w.GetStream()) {
			return false
		}
		for _, e := range w.GetEvents() {
			if !filled(e.GetType()) || len(e.GetPayload()) > 921600 {
				return false
			}
		}
	}
	return true
}

func filled(s string) bool { return s != "" && len(s) <= 200 }

// fitsStream tells whether s is of the form ^[a-z][a-z0-9]*-[A-Za-z0-9_.:-]{1,120}$.
func fitsStream(s string) bool {
	for i := range len(s) {
		if s[i] != '-' {
			continue
		}
		rest := s[i+1:]
		if !named(s[:i], len(s), true) || rest == "" || len(rest) > 120 {
			return false
		}
		for j := range len(rest) {
			switch c := rest[j]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == ':', c == '-':
			default:
				return false
			}
		}
		return true
	}
	return false
}

// named tells whether s is 1 to most letters a-z; behind the first, where they
// may be, also digits.
func named(s string, most int, digits bool) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (!digits || i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}
