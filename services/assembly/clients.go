package assembly

import (
	"fmt"

	"github.com/probity-health/probity/proto/probity/consent/v1/consentv1connect"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/server"
)

// store returns the ledger as this process's services see it. It acts under
// the process's own token; who acted for whom is recorded in each commit.
func (p *Process) store(ledgerURL string) (*eventstore.Remote, error) {
	client, err := p.Own()
	if err != nil {
		return nil, err
	}
	ledger := ledgerv1connect.NewLedgerServiceClient(client, ledgerURL, client.Options()...)
	return eventstore.NewRemote(ledger, eventstore.RemoteOptions{Logger: p.Telemetry.Log}), nil
}

func newKeyClient(client *server.Client, consentURL string) consentv1connect.KeyServiceClient {
	return consentv1connect.NewKeyServiceClient(client, consentURL, client.Options()...)
}

// required takes names and values in turn and names the first that is empty.
func required(pairs ...string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			return fmt.Errorf("configuration: %s is required", pairs[i])
		}
	}
	return nil
}
