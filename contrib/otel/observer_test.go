package pglockerotel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"

	"github.com/ismurov/pglocker"
)

// TestClassesAreBounded: each kind has 50 classes and one for the rest, however many names there are.
func TestClassesAreBounded(t *testing.T) {
	t.Parallel()

	appeared := 0
	c := classes{
		classify:   func(_ pglocker.Kind, name string) string { return name },
		appeared:   func([]attribute.KeyValue) { appeared++ },
		attributes: make(map[pglocker.Kind]map[string][]attribute.KeyValue),
	}

	for range 2 {
		for i := range 1000 {
			for _, kind := range []pglocker.Kind{pglocker.KindLock, pglocker.KindElection} {
				want := fmt.Sprint(i)
				if i >= maxClasses {
					want = other
				}

				got := c.of(pglocker.Subject{Kind: kind, Name: fmt.Sprint(i)})
				if !slices.Equal(got, []attribute.KeyValue{attribute.String("kind", string(kind)), attribute.String("class", want)}) {
					t.Fatalf("number %d of %s: %v, want class %s", i, kind, got, want)
				}
			}
		}
	}

	if want := 2 * (maxClasses + 1); appeared != want {
		t.Errorf("%d classes appeared, want %d", appeared, want)
	}

	if got := c.of(pglocker.Subject{Locks: 3}); got != nil {
		t.Errorf("renewals of several kinds: %v, want no attributes", got)
	}
}

// TestUnclassified: without a classifier no part of an id gets out.
func TestUnclassified(t *testing.T) {
	t.Parallel()

	o, err := NewObserver(nil)
	if err != nil {
		t.Fatal(err)
	}

	got := o.classes.of(pglocker.Subject{Kind: pglocker.KindLock, Name: "secret", LockID: "secret"})
	if !slices.Equal(got, []attribute.KeyValue{attribute.String("kind", "lock")}) {
		t.Errorf("%v, want the kind alone", got)
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()

	const (
		acquire = pglocker.OperationAcquire
		release = pglocker.OperationRelease
	)

	held := &pglocker.HeldError{LockID: "a"}
	refused := &pgconn.PgError{Code: "42501"}

	for name, test := range map[string]struct {
		op        pglocker.Operation
		err       error
		want      string
		errorType string
	}{
		"granted":             {acquire, nil, "granted", ""},
		"released":            {release, nil, "released", ""},
		"renewed":             {pglocker.OperationRenew, nil, "renewed", ""},
		"held":                {acquire, held, "held", ""},
		"gave up waiting":     {acquire, fmt.Errorf("%w: %w", context.DeadlineExceeded, held), "canceled", ""},
		"cancelled in flight": {acquire, fmt.Errorf("%w: %w", pglocker.ErrUnknownOutcome, context.Canceled), "error", "unknown_outcome"},
		"lost":                {release, fmt.Errorf("so: %w", pglocker.ErrWrongGeneration), "lost", ""},
		"closed":              {acquire, pglocker.ErrClosed, "closed", ""},
		"refused":             {acquire, fmt.Errorf("so: %w", refused), "error", "42501"},
		"network":             {acquire, &net.OpError{Op: "dial", Err: errors.New("refused")}, "error", "network"},
		"anything":            {acquire, errors.New("for /home/alice"), "error", "_OTHER"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got := outcomeOf(pglocker.OperationEnd{OperationStart: pglocker.OperationStart{Operation: test.op}, Err: test.err})
			attrs := attribute.NewSet(result(got, test.err)...)
			errorType, _ := attrs.Value("error.type")

			if got != test.want || errorType.AsString() != test.errorType {
				t.Errorf("outcome %q, error.type %q, want %q and %q", got, errorType.AsString(), test.want, test.errorType)
			}
		})
	}

	for err, want := range map[error]string{
		nil:                         "released",
		pglocker.ErrLockLost:        "lost",
		pglocker.ErrClosed:          "closed",
		pglocker.ErrResignRequested: "resigned",
		pglocker.ErrUnhealthy:       "unhealthy",
		context.Canceled:            "canceled",
	} {
		if got := holdOutcomeOf(err); got != want {
			t.Errorf("a hold that ended by %v: %s, want %s", err, got, want)
		}
	}
}
