package pglockercertmagic_test

import (
	"context"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/ismurov/pglocker"
	pglockercertmagic "github.com/ismurov/pglocker/contrib/certmagic"
)

// One process of many obtains or renews a certificate.
func Example() {
	_ = func(ctx context.Context, locker *pglocker.Locker) error {
		locks, err := pglockercertmagic.NewLocker(locker, "certmagic: ", 30*time.Second)
		if err != nil {
			return err
		}

		// The files stay where they are.
		certmagic.Default.Storage = pglockercertmagic.NewStorage(&certmagic.FileStorage{Path: "/shared/certs"}, locks)

		return certmagic.NewDefault().ManageSync(ctx, []string{"example.com"})
	}
}
