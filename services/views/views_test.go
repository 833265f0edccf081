package views_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/views"
)

func TestOpenRefuses(t *testing.T) {
	apply := func([]views.Op, eventstore.Recorded) ([]views.Op, error) { return nil, nil }
	for name, p := range map[string]views.Projection{
		"no name":    {Log: "claims", Version: 1, Apply: apply},
		"odd name":   {Name: "a:b", Log: "claims", Version: 1, Apply: apply},
		"no log":     {Name: "a", Version: 1, Apply: apply},
		"no version": {Name: "a", Log: "claims", Apply: apply},
		"no apply":   {Name: "a", Log: "claims", Version: 1},
	} {
		_, err := views.Open(nil, p, views.Options{})
		require.Error(t, err, name)
	}
}
