package standalone

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/ledger"
)

// secrets are the keys that a first start makes. They lie in the data
// directory, each a file of mode 0600: good for a developer's machine only.
type secrets struct {
	dir                           string
	indexKey, masterKey, payloads string // files of 32-byte keys
	ledgerKey                     string // note signer key
}

func openSecrets(dir string) (secrets, error) {
	s := secrets{
		dir:       dir,
		indexKey:  filepath.Join(dir, "index.key"),
		masterKey: filepath.Join(dir, "master.key"),
		payloads:  filepath.Join(dir, "workflow-payloads.key"),
		ledgerKey: filepath.Join(dir, "ledger-signing.key"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return secrets{}, fmt.Errorf("standalone: %w", err)
	}
	for _, file := range []string{s.indexKey, s.masterKey, s.payloads} {
		if _, _, err := keys.EnsureKeyFile(file); err != nil {
			return secrets{}, err
		}
	}
	if _, err := ledger.EnsureKey(s.ledgerKey, Origin); err != nil {
		return secrets{}, err
	}
	return s, nil
}
