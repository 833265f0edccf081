package process

import "testing"

// Address is FreeAddress for a test.
func Address(t testing.TB) string {
	t.Helper()
	address, err := FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return address
}
