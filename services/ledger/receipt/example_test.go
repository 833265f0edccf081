package receipt_test

import (
	"fmt"
	"os"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// A provider checks, on a machine without network, that the ledger holds the
// claim it submitted. The receipt came with the remittance; the key was
// published by the ledger's operator.
func ExampleVerify() {
	document, err := os.ReadFile("testdata/receipt.txt")
	if err != nil {
		panic(err)
	}
	commit, err := os.ReadFile("testdata/commit.bin")
	if err != nil {
		panic(err)
	}
	key, err := os.ReadFile("testdata/key.pub")
	if err != nil {
		panic(err)
	}
	policy, err := receipt.NewPolicy("ledger.example.org/health", 1, string(key))
	if err != nil {
		panic(err)
	}
	v, err := receipt.Verify(document, policy)
	if err != nil {
		panic(err)
	}
	if err := receipt.VerifyCommit(v, commit); err != nil {
		panic(err)
	}
	fmt.Printf("%s/%d index %d is in block %d\n", v.Log, v.Shard, v.Index, v.Height)
	// Output: claims/0 index 5 is in block 3
}
