package casework

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/codes"
)

const day = 24 * time.Hour

// NewClock is the prompt-pay clock of a claim that was clean when it came.
// received is the payer's calendar day of receipt, ISO 8601.
func NewClock(state string, paper bool, received string) *claimsv1.PromptPayClock {
	c := &claimsv1.PromptPayClock{State: state, Paper: paper, StartDate: received}
	c.DueDate = dueDate(c)
	return c
}

// dueDate is the last day: the days of the state's rule after the start, and
// those that don't count. Empty where the start is no day.
func dueDate(c *claimsv1.PromptPayClock) string {
	start, err := time.Parse(time.DateOnly, c.GetStartDate())
	if err != nil {
		return ""
	}
	days := codes.PromptPayDays(c.GetState(), !c.GetPaper()) + int(c.GetPausedDays())
	return start.AddDate(0, 0, days).Format(time.DateOnly)
}

// stopClock: from now on the provider is waited for.
func stopClock(c *claimsv1.PromptPayClock, now time.Time) *claimsv1.PromptPayClock {
	if c == nil || c.GetStoppedTime() != nil {
		return c
	}
	c = proto.CloneOf(c)
	c.DueDate, c.StoppedTime = "", timestamppb.New(now)
	return c
}

// runClock lets the clock run again. today is the payer's calendar day, and
// stopped the day it was stopped on. What has come on the last missing day
// makes the claim clean that day: the state's days begin anew with it, or,
// where its law has it so, those waited for are left out of the count.
func runClock(c *claimsv1.PromptPayClock, stopped, today string) *claimsv1.PromptPayClock {
	if c == nil || c.GetStoppedTime() == nil {
		return c
	}
	c = proto.CloneOf(c)
	c.StoppedTime = nil
	if codes.PromptPay(c.GetState()).Pauses {
		c.PausedDays += daysBetween(stopped, today)
	} else {
		c.StartDate, c.PausedDays = today, 0
	}
	c.DueDate = dueDate(c)
	return c
}

func daysBetween(from, to string) uint32 {
	a, err1 := time.Parse(time.DateOnly, from)
	b, err2 := time.Parse(time.DateOnly, to)
	if err1 != nil || err2 != nil || !b.After(a) {
		return 0
	}
	return uint32(b.Sub(a) / day) //nolint:gosec // a span of days between two dates of this era
}
