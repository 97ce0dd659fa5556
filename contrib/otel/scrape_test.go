package pglockerotel_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/ismurov/pglocker"
)

// TestScrape: what a program does is found in a scrape of it.
func TestScrape(t *testing.T) {
	t.Parallel()

	p := startProgram(t)
	ctx := t.Context()

	p.handOver("invoice/1")
	p.lose("invoice/2")
	resign := p.lead("reports")
	p.awaitValue(1, "pglocker_held", "kind=election", "class=reports")
	resign()

	lock, err := p.locker.TryLock(ctx, "invoice/3", time.Minute)
	must(t, err)

	if _, err := p.locker.TryLock(ctx, "invoice/3", time.Minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("TryLock of a held lock: %v", err)
	}

	must(t, lock.Unlock(ctx))

	all, err := p.locker.TryLockAll(ctx, []string{"batch/1", "batch/2", "batch/3"}, time.Minute)
	must(t, err)
	p.awaitValue(3, "pglocker_held", "class=batch")
	must(t, all.Unlock(ctx))

	impatient, cancel := context.WithCancel(ctx)
	cancel()

	if _, err := p.locker.Lock(impatient, "invoice/3", time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock with a context that has ended: %v", err)
	}

	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{0, "pglocker_held", []string{"kind=lock", "class=invoice"}},
		{0, "pglocker_held", []string{"kind=lock", "class=batch"}},
		{0, "pglocker_held", []string{"kind=election", "class=reports"}},
		{0, "pglocker_waiting", []string{"kind=lock", "class=invoice"}},
		{0, "pglocker_waiting", []string{"kind=election", "class=reports"}},
		{1, "pglocker_lost_total", []string{"kind=lock", "class=invoice", "reason=gone"}},
		{1, "pglocker_lost_total", []string{"kind=lock", "class=invoice", "reason=unconfirmed"}},
		{0, "pglocker_lost_total", []string{"kind=lock", "class=batch", "reason=gone"}},
		{4, "pglocker_acquire_duration_seconds", []string{"kind=lock", "class=invoice", "outcome=granted"}},
		{2, "pglocker_acquire_duration_seconds", []string{"kind=lock", "class=invoice", "outcome=held"}},
		{1, "pglocker_acquire_duration_seconds", []string{"kind=lock", "class=invoice", "outcome=canceled"}},
		{1, "pglocker_acquire_duration_seconds", []string{"kind=election", "class=reports", "outcome=granted"}},
		{1, "pglocker_wait_duration_seconds", []string{"kind=lock", "class=invoice", "outcome=handed_over"}},
		{3, "pglocker_hold_duration_seconds", []string{"kind=lock", "class=invoice", "outcome=released"}},
		{2, "pglocker_hold_duration_seconds", []string{"kind=lock", "class=invoice", "outcome=lost"}},
		{1, "pglocker_hold_duration_seconds", []string{"kind=election", "class=reports", "outcome=canceled"}},
		{1, "pglocker_release_duration_seconds", []string{"class=batch", "outcome=released"}},
	} {
		if got, ok := p.scrape(want.name, want.labels...); !ok || got != want.value {
			t.Errorf("%s of %q is %v (found: %t), want %v", want.name, want.labels, got, ok, want.value)
		}
	}

	for _, operation := range []string{"acquire", "renew", "release"} {
		if got, _ := p.scrape("pglocker_batch_size", "operation="+operation); got == 0 {
			t.Errorf("no batch of operation %s", operation)
		}
	}

	if got, _ := p.scrape("pglocker_renew_duration_seconds", "outcome=renewed"); got == 0 {
		t.Error("no renewal")
	}

	p.awaitValue(0, "pglocker_listener", "state=hearing") // a while after the last waiter
	p.awaitValue(0, "pglocker_listener", "state=polling")
}

// TestSpans: the span of a hold is a child of its caller's, and the parent of what its function does.
func TestSpans(t *testing.T) {
	t.Parallel()

	p := startProgram(t)
	tracer := p.traces.Tracer("test")

	p.lose("invoice/1")

	ctx, caller := tracer.Start(t.Context(), "caller")

	var token int64

	must(t, p.locker.Do(ctx, "invoice/2", time.Minute, 20*time.Second, func(ctx context.Context) error {
		token, _ = pglocker.Token(ctx)
		_, work := tracer.Start(ctx, "work")
		work.End()

		return nil
	}))
	caller.End()

	under := func(name string, parent trace.ReadOnlySpan) trace.ReadOnlySpan {
		for _, s := range p.spans.Ended() {
			if s.Name() == name && s.Parent().SpanID() == parent.SpanContext().SpanID() {
				return s
			}
		}

		t.Fatalf("no span %s under %s", name, parent.Name())

		return nil
	}
	called := caller.(trace.ReadOnlySpan)

	for _, name := range []string{"pglocker acquire", "pglocker release"} {
		wantSpan(t, under(name, called), codes.Unset, attribute.Int64("token", token), attribute.String("class", "invoice"))
	}

	hold := under("pglocker hold", called)
	wantSpan(t, hold, codes.Unset, attribute.Int64("token", token), attribute.String("outcome", "released"),
		attribute.String("kind", "lock"), attribute.String("class", "invoice"), attribute.Int("locks", 1))
	under("work", hold)

	lost := 0

	for _, s := range p.spans.Ended() {
		if s.Name() == "pglocker hold" && s.Status().Code == codes.Error {
			wantSpan(t, s, codes.Error, attribute.String("outcome", "lost"))

			lost++
		}
	}

	if lost != 2 || len(p.spans.Started()) != len(p.spans.Ended()) {
		t.Errorf("%d holds were lost, %d spans started and %d ended; want 2, and as many", lost, len(p.spans.Started()), len(p.spans.Ended()))
	}
}

func wantSpan(t *testing.T, s trace.ReadOnlySpan, status codes.Code, attrs ...attribute.KeyValue) {
	t.Helper()

	set := attribute.NewSet(s.Attributes()...)
	for _, want := range attrs {
		if got, ok := set.Value(want.Key); !ok || got != want.Value {
			t.Errorf("%s has %s %q, want %q", s.Name(), want.Key, got.String(), want.Value.String())
		}
	}

	if s.Status().Code != status {
		t.Errorf("%s has the status %v, want %v", s.Name(), s.Status(), status)
	}
}
