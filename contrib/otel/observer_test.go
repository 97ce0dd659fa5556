package pglockerotel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/ismurov/pglocker"
)

// TestClassesAreBounded: each kind has 50 classes and one for the rest, however many names there are.
func TestClassesAreBounded(t *testing.T) {
	t.Parallel()

	appeared := 0
	c := classes{
		classify: func(_ pglocker.Kind, name string) string { return name },
		appeared: func(*class) { appeared++ },
		none:     newClass(),
		seen:     make(map[pglocker.Kind]map[string]*class),
	}

	for range 2 {
		for i := range 1000 {
			for _, kind := range []pglocker.Kind{pglocker.KindLock, pglocker.KindElection} {
				want := fmt.Sprint(i)
				if i >= maxClasses {
					want = other
				}

				got := c.of(pglocker.Subject{Kind: kind, Name: fmt.Sprint(i)}).attrs
				if !slices.Equal(got, []attribute.KeyValue{attribute.String("kind", string(kind)), attribute.String("class", want)}) {
					t.Fatalf("number %d of %s: %v, want class %s", i, kind, got, want)
				}
			}
		}
	}

	if want := 2 * (maxClasses + 1); appeared != want {
		t.Errorf("%d classes appeared, want %d", appeared, want)
	}

	if got := c.of(pglocker.Subject{Locks: 3}).attrs; len(got) > 0 {
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

	got := o.classes.of(pglocker.Subject{Kind: pglocker.KindLock, Name: "secret", LockID: "secret"}).attrs
	if !slices.Equal(got, []attribute.KeyValue{attribute.String("kind", "lock")}) {
		t.Errorf("%v, want the kind alone", got)
	}
}

// TestBrokenClass: a class that was cut within a letter is still one, because one broken label makes a scrape fail.
func TestBrokenClass(t *testing.T) {
	t.Parallel()

	o, err := NewObserver(WithClass(func(_ pglocker.Kind, name string) string { return name[:4] }))
	if err != nil {
		t.Fatal(err)
	}

	got := o.classes.of(pglocker.Subject{Kind: pglocker.KindLock, Name: "café/1"}).attrs
	if want := attribute.String("class", "caf\uFFFD"); !slices.Contains(got, want) {
		t.Errorf("%v, want %v among them", got, want)
	}
}

// TestEventsAllocateNothing: the attributes of what was seen before are kept.
func TestEventsAllocateNothing(t *testing.T) {
	o, err := NewObserver(WithMeterProvider(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))),
		WithTracerProvider(noop.NewTracerProvider()), WithClass(func(pglocker.Kind, string) string { return "a" }))
	if err != nil {
		t.Fatal(err)
	}

	var (
		ctx     = t.Context()
		subject = pglocker.Subject{Kind: pglocker.KindLock, Name: "a/1", LockID: "a/1", Locks: 1}
		start   = pglocker.HoldStart{Subject: subject, Token: 2, TTL: time.Minute}
		end     = pglocker.OperationEnd{OperationStart: pglocker.OperationStart{Operation: pglocker.OperationAcquire, Subject: subject}}
	)

	for what, event := range map[string]func(){
		"renewed": func() { o.LockRenewed(pglocker.LockRenewed{Subject: subject, TTL: time.Minute, Left: time.Second}) },
		"lost":    func() { o.LockLost(pglocker.LockLost{Subject: subject, Gone: true}) },
		"batch":   func() { o.BatchSent(pglocker.BatchSent{Operation: pglocker.OperationRenew, Locks: 3}) },
		"listener": func() {
			o.ListenerChanged(pglocker.ListenerChanged{From: pglocker.ListenerPolling, To: pglocker.ListenerHearing})
		},
		"acquired": func() { o.OperationEnd(ctx, end) },
		"held":     func() { o.HoldEnd(ctx, pglocker.HoldEnd{HoldStart: start, HeldFor: time.Second}) },
	} {
		if got := testing.AllocsPerRun(1000, event); got > 0 {
			t.Errorf("%s: %v allocations", what, got)
		}
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
			attrs := attribute.NewSet(resultOf(got, test.err).attributes()...)
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
