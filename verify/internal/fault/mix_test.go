package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
)

// part is a fault that goes on after it was told to end, and then fails.
type part struct {
	err      error
	after    time.Duration
	numbers  []uint64
	returned time.Time
}

func (p *part) Inject(ctx context.Context, _ *cluster.Cluster, r *rand.Rand) error {
	p.numbers = append(p.numbers, r.Uint64(), r.Uint64())

	<-ctx.Done()
	time.Sleep(p.after)

	p.returned = time.Now()

	return p.err
}

func (*part) Addresses() []string { return nil }
func (*part) Close() error        { return nil }

// TestTogether: the parts of a mixture run at the same time, each with a randomness of its
// own that follows from the seed, and the mixture ends when all have ended, with their errors.
func TestTogether(t *testing.T) {
	t.Parallel()

	for name, mixed := range map[string]func(a, b *part) func(context.Context, *cluster.Cluster, *rand.Rand) error{
		"mixture": func(a, b *part) func(context.Context, *cluster.Cluster, *rand.Rand) error {
			return mix("mixture", []Fault{{Name: "a", Inject: a.Inject}, {Name: "b", Inject: b.Inject}}).Inject
		},
		"with a failover": func(a, b *part) func(context.Context, *cluster.Cluster, *rand.Rand) error {
			return troubled{a, Fault{Name: "b", Inject: b.Inject}}.Inject
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var first []uint64

				for range 2 {
					a := &part{err: errors.New("a"), after: time.Second}
					b := &part{err: errors.New("b"), after: 2 * time.Second}

					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					began := time.Now()
					err := mixed(a, b)(ctx, nil, rand.New(rand.NewPCG(7, 0)))

					cancel()

					if took := time.Since(began); took != time.Minute+b.after {
						t.Errorf("it took %s", took)
					}

					if !errors.Is(err, a.err) || !errors.Is(err, b.err) {
						t.Errorf("it returned %v", err)
					}

					if a.returned.Sub(began) != time.Minute+a.after || b.returned.Sub(began) != time.Minute+b.after {
						t.Errorf("the parts returned after %s and %s", a.returned.Sub(began), b.returned.Sub(began))
					}

					numbers := append(a.numbers, b.numbers...)
					if len(numbers) != 4 || numbers[0] == numbers[2] || numbers[1] == numbers[3] {
						t.Fatalf("the parts drew %v", numbers)
					}

					if first == nil {
						first = numbers
					}

					for i := range first {
						if numbers[i] != first[i] {
							t.Errorf("the same seed gave %v, and then %v", first, numbers)
						}
					}
				}
			})
		})
	}
}

// TestPersist: what fails is tried again, even if the fault's time is over, but not for ever.
func TestPersist(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		over, cancel := context.WithCancel(t.Context())
		cancel()

		failed := errors.New("down")
		tries := 0

		err := persist(over, func(ctx context.Context) error {
			if tries++; tries < 3 {
				return failed
			}

			return ctx.Err()
		})
		if err != nil || tries != 3 {
			t.Errorf("%d tries, %v, want three", tries, err)
		}

		began := time.Now()

		err = persist(t.Context(), func(context.Context) error { return failed })
		if took := time.Since(began); !errors.Is(err, failed) || took < patience || took > patience+time.Second {
			t.Errorf("after %s: %v, want %v after %s", took, err, failed, patience)
		}
	})
}
