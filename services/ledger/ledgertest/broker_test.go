package ledgertest_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/probity-health/probity/services/ledger/ledgertest"
)

func TestTheEmbeddedBrokerIsWhatTheLedgerReliesOn(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(1, "facts"))
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	ledgertest.RunBroker(t, ledgertest.KFake, "facts", broker.ListenAddrs()...)
}
