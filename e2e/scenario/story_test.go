package scenario

import (
	"testing"
)

// TestAStackFromItsFirstFileToItsRestart tells one story in parts: each finds
// the stack as the parts before have left it.
func TestAStackFromItsFirstFileToItsRestart(t *testing.T) {
	s := startStack(t)
	sent := &ledgerOfTheSender{}
	for _, part := range []struct {
		name string
		tell func(*testing.T, *stack, *ledgerOfTheSender)
	}{
		{"the sample's claims end as worked out by hand", theSample},
		{"acknowledgements and remittances parse and balance", theDocuments},
		{"receipts prove decisions offline and nothing else does", theReceipts},
		{"the same file again pays nothing", theSameFileAgain},
		{"the same claims in another file are duplicates", theSameClaimsInAnotherFile},
		{"a person approves what waits", theReview},
		{"a replacement and a void travel as reversals and corrections", theCorrection},
		{"coverage ended back in time takes back what was paid, by itself", theLateTermination},
		{"published examples are decided or refused with a reason", theExamples},
		{"broken examples are refused at their place", theBrokenExamples},
		{"bad files change nothing but the list of refusals", badFiles},
		{"bad claims change nothing", badClaims},
		{"bad plans are refused", badPlans},
		{"strangers and the wrong role get nothing", theWrongCaller},
		{"what is too large is refused", tooLarge},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.tell(t, s, sent) }) {
			t.FailNow() // the next part stands on this one
		}
	}
	owner := t // a subtest's processes end with it
	t.Run("after a stop and a start everything answers the same", func(t *testing.T) { theRestart(t, s, func() { s.start(owner) }) })
	t.Run("no health data lies on the disk in clear", func(t *testing.T) { theDisk(t, s) })
}

// ledgerOfTheSender is what a sender writes down of what was sent.
type ledgerOfTheSender struct {
	sampleFile string // id of the sample's file
	pended     string // claim id
	repeated   string // claim id of the pended claim sent a second time
}
