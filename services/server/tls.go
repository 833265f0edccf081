package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// serverTLS reads the files now, so that a wrong path fails at start.
func serverTLS(files TLSFiles) (*tls.Config, error) {
	pair := &keyPair{certFile: files.CertFile, keyFile: files.KeyFile}
	if _, err := pair.get(); err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get() },
	}
	if files.ClientCAFile != "" {
		pool, err := loadPool(files.ClientCAFile)
		if err != nil {
			return nil, err
		}
		config.ClientCAs, config.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return config, nil
}

func loadPool(path string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("server: tls: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("server: tls: %s holds no PEM certificate", path)
	}
	return pool, nil
}

// keyPair reads a certificate again when its file has changed: certificates
// of a cluster live for days and are replaced under running processes.
type keyPair struct {
	certFile, keyFile string

	mu       sync.Mutex
	current  *tls.Certificate // guarded by mu
	modified time.Time        // guarded by mu; of certFile when current was read
}

func (k *keyPair) get() (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	info, err := os.Stat(k.certFile)
	if err == nil && k.current != nil && info.ModTime().Equal(k.modified) {
		return k.current, nil
	}
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(k.certFile, k.keyFile); err == nil {
			k.current, k.modified = &pair, info.ModTime()
			return k.current, nil
		}
	}
	// In the middle of a replacement the two files may not fit; the old pair
	// goes on serving and the next handshake looks again.
	if k.current != nil {
		return k.current, nil
	}
	return nil, fmt.Errorf("server: tls: %w", err)
}
