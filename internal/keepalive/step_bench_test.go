package keepalive

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// BenchmarkStep is one look of the loop while 100,000 leases are held and none is due.
// It happens twice a second, at every attempt and whenever a lease is added that ends
// before the others.
func BenchmarkStep(b *testing.B) {
	r := New(func() Session { return idle{} }, func(Trouble) {})
	r.stop = func() {} // no loop of its own: this one is the loop

	term := Term{Sent: time.Now(), TTL: 24 * time.Hour, Margin: time.Second}

	for i := range 100_000 {
		r.Add(&Lease{LockID: strconv.Itoa(i), Interval: 8 * time.Hour}, term)
	}

	b.ResetTimer()

	for range b.N {
		r.step(b.Context(), time.Now())
	}
}

// idle is a session that is never used.
type idle struct{}

func (idle) Connect(context.Context) error { return nil }

func (idle) Renew(context.Context, []store.Renewal, store.RenewedFunc) ([]store.RenewResult, time.Time, error) {
	return nil, time.Time{}, nil
}

func (idle) Close() {}
