package pglockercertmagic_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/ismurov/pglocker"
	pglockercertmagic "github.com/ismurov/pglocker/contrib/certmagic"
)

// The environment of a worker: the test's authority, the database, the folder of the files, and the TTL.
const (
	envAuthority = "PGLOCKERCERTMAGIC_AUTHORITY"
	envURL       = "PGLOCKERCERTMAGIC_URL"
	envFolder    = "PGLOCKERCERTMAGIC_FOLDER"
	envTTL       = "PGLOCKERCERTMAGIC_TTL"
)

// domain is what the workers want a certificate of.
const domain = "a.example.com"

// workerMain has certmagic manage a certificate until it does. It ends when its standard input does: the test has closed
// it, or is gone.
func workerMain() int {
	go func() {
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()

	_, _ = io.Copy(io.Discard, os.Stdin)

	return 0
}

func work() error {
	ttl, err := time.ParseDuration(os.Getenv(envTTL))
	if err != nil {
		return err
	}

	db, err := sql.Open("pgx", os.Getenv(envURL))
	if err != nil {
		return err
	}

	locker, err := pglocker.New(db, &pglocker.Config{})
	if err != nil {
		return err
	}

	locks, err := pglockercertmagic.NewLocker(locker, prefix, ttl)
	if err != nil {
		return err
	}

	var config *certmagic.Config

	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
		Logger:           zap.NewNop(),
	})
	config = certmagic.New(cache, certmagic.Config{
		Storage: pglockercertmagic.NewStorage(&certmagic.FileStorage{Path: os.Getenv(envFolder)}, locks),
		Issuers: []certmagic.Issuer{remote{locks}},
		Logger:  zap.NewNop(),
	})

	for err = errors.New("not yet"); err != nil; {
		err = config.ManageSync(context.Background(), []string{domain})
	}

	_, err = ask("managed", nil, nil)

	return err
}

// remote is the issuer of a worker, which asks the test. Each time, it then renews the lease of the lock, as certmagic
// does before its next attempt a minute later, and tells the test what came of it.
type remote struct{ locks *pglockercertmagic.Locker }

func (r remote) IssuerKey() string { return "test" }

func (r remote) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	issued, err := ask("issue", nil, csr.Raw)

	held := r.locks.RenewLockLease(ctx, "issue_cert_"+domain, time.Minute)

	told := url.Values{}
	if held != nil {
		told.Set("error", held.Error())
		told.Set("lost", strconv.FormatBool(errors.Is(held, pglocker.ErrLockLost)))
	}

	if _, err := ask("renewed", told, nil); err != nil {
		return nil, err
	}

	if err = errors.Join(err, held); err != nil {
		return nil, err
	}

	return &certmagic.IssuedCertificate{Certificate: issued}, nil
}

// ask sends something to the test, and returns what it answers.
func ask(what string, query url.Values, body []byte) ([]byte, error) {
	if query == nil {
		query = url.Values{}
	}

	query.Set("pid", strconv.Itoa(os.Getpid()))

	answer, err := http.Post(os.Getenv(envAuthority)+"/"+what+"?"+query.Encode(), "", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()

	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", what, answer.Status)
	}

	return io.ReadAll(answer.Body)
}
