package pglockercertmagic_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	pglockercertmagic "github.com/ismurov/pglocker/contrib/certmagic"
)

// issuer signs what it is asked to, and counts.
type issuer struct {
	key  *ecdsa.PrivateKey
	root *x509.Certificate
	// issued is how many certificates, and busy how many at present.
	issued, busy atomic.Int32
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)

	return &issuer{key: key, root: &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true,
	}}
}

func (i *issuer) IssuerKey() string { return "test" }

func (i *issuer) Issue(_ context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if i.busy.Add(1) > 1 {
		panic("two are issued at the same time")
	}
	defer i.busy.Add(-1)

	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(int64(i.issued.Add(1)) + 1), DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 3, 0),
	}, i.root, csr.PublicKey, i.key)
	if err != nil {
		return nil, err
	}

	return &certmagic.IssuedCertificate{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// TestCertmagic: three processes want the same certificates. Each is issued once, and all load it.
func TestCertmagic(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	ca := newIssuer(t)
	folder := t.TempDir()

	var processes sync.WaitGroup

	for range 3 {
		locks, _ := newLocks(t, url)

		var config *certmagic.Config

		cache := certmagic.NewCache(certmagic.CacheOptions{
			GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
			Logger:           zap.NewNop(),
		})
		t.Cleanup(cache.Stop)

		config = certmagic.New(cache, certmagic.Config{
			Storage: pglockercertmagic.NewStorage(&certmagic.FileStorage{Path: folder}, locks),
			Issuers: []certmagic.Issuer{ca},
			Logger:  zap.NewNop(),
		})

		processes.Go(func() {
			if err := config.ManageSync(t.Context(), []string{"a.example.com", "b.example.com"}); err != nil {
				t.Error(err)
			}
		})
	}

	processes.Wait()

	if n := ca.issued.Load(); n != 2 {
		t.Errorf("%d certificates were issued, not 2", n)
	}
}
