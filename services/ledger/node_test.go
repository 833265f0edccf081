package ledger_test

import (
	"testing"

	"github.com/probity-health/probity/services/ledger/ledgertest"
)

func TestConformanceOnTheEmbeddedBroker(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T) ledgertest.World { return ledgertest.NewEmbedded(t) })
}
