package worker

import (
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/hook"
	"github.com/probity-health/probity/workflows/payment"
)

// Catalog is every workflow of this build: the one table that the worker
// registers, the followers obey and the tests replay. A new service's workflow
// is one row here; see package hook.
func Catalog(d Deps) []hook.Workflow {
	cases := &claim.Activities{Claims: d.Claims, Cases: d.Cases, Files: d.Files, Remittances: d.Remittances}
	return []hook.Workflow{
		claimfile.Hook(&claimfile.Activities{Gateway: d.Gateway, Files: d.Files, Remittances: d.Remittances}),
		claim.Hook(cases),
		claim.AppealHook(cases),
		payment.Hook(d.Payments),
		payment.TaskHook(&payment.TaskActivities{Tasks: d.PaymentTasks}),
	}
}
