package claims

import (
	"testing"

	"github.com/probity-health/probity/services/server/schematest"
)

func TestTheQuickCheckPassesNothingThatTheSchemaRefuses(t *testing.T) {
	schematest.Holds(t, FitsSchema)
}
