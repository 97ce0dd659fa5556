package pglockerotel

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/ismurov/pglocker"
)

const scope = "github.com/ismurov/pglocker/contrib/otel"

// Observer is a [pglocker.Observer]. Its methods are for a Locker to call. Make it with [NewObserver].
type Observer struct {
	instruments

	tracer  trace.Tracer
	classes classes
}

var _ interface {
	pglocker.Observer
	pglocker.HoldObserver
	pglocker.RenewalObserver
	pglocker.BatchObserver
	pglocker.ListenerObserver
} = (*Observer)(nil)

// NewObserver returns an observer for [pglocker.Config]. To join it with another, use [pglocker.JoinObservers]. Its
// errors are those of the meter.
func NewObserver(opts ...Option) (*Observer, error) {
	options := newOptions(opts)

	in, err := newInstruments(options.meters.Meter(scope))
	if err != nil {
		return nil, err
	}

	o := &Observer{instruments: in, tracer: options.tracers.Tracer(scope)}
	o.classes = classes{
		classify: options.classify, appeared: o.appeared,
		attributes: make(map[pglocker.Kind]map[string][]attribute.KeyValue),
	}

	for _, state := range []pglocker.ListenerState{pglocker.ListenerHearing, pglocker.ListenerPolling} {
		o.listens(state, 0)
	}

	return o, nil
}

// appeared begins the series of a class at 0. A series that begins at 1 doesn't increase for Prometheus, and an
// election without a leader is one whose series is 0 in all processes.
func (o *Observer) appeared(class []attribute.KeyValue) {
	ctx := context.Background()

	o.held.Add(ctx, 0, metric.WithAttributes(class...))
	o.waiting.Add(ctx, 0, metric.WithAttributes(class...))

	for _, gone := range []bool{true, false} {
		o.lost.Add(ctx, 0, metric.WithAttributes(class...), metric.WithAttributes(reason(gone)))
	}
}

func reason(gone bool) attribute.KeyValue {
	if gone {
		return attribute.String("reason", "gone")
	}

	return attribute.String("reason", "unconfirmed")
}

// spanKey is the key of the span that this package has begun last. Another observer may have begun one since.
type spanKey struct{}

func (o *Observer) startSpan(ctx context.Context, name string, class []attribute.KeyValue, locks int) context.Context {
	ctx, span := o.tracer.Start(ctx, "pglocker "+name, trace.WithAttributes(class...), trace.WithAttributes(attribute.Int("locks", locks)))

	return context.WithValue(ctx, spanKey{}, span)
}

// endSpan tells nothing of an error but its outcome and its type: its text names locks and owners.
func endSpan(ctx context.Context, token int64, failed bool, attrs []attribute.KeyValue) {
	span, ok := ctx.Value(spanKey{}).(trace.Span)
	if !ok {
		return
	}

	if span.IsRecording() {
		span.SetAttributes(attrs...)

		if token > 0 {
			span.SetAttributes(attribute.Int64("token", token))
		}

		if failed {
			span.SetStatus(codes.Error, "")
		}
	}

	span.End()
}

// OperationStart begins the span of an operation. Renewals have none: they belong to no call.
func (o *Observer) OperationStart(ctx context.Context, start pglocker.OperationStart) context.Context {
	class := o.classes.of(start.Subject)

	switch start.Operation {
	case pglocker.OperationRenew:
		return ctx
	case pglocker.OperationWait:
		o.waiting.Add(ctx, int64(start.Locks), metric.WithAttributes(class...))
	}

	return o.startSpan(ctx, string(start.Operation), class, start.Locks)
}

// OperationEnd counts an operation, and ends its span.
func (o *Observer) OperationEnd(ctx context.Context, end pglocker.OperationEnd) {
	ctx = context.WithoutCancel(ctx)
	class, outcome := o.classes.of(end.Subject), outcomeOf(end)
	attrs := result(outcome, end.Err)

	if end.Operation == pglocker.OperationWait {
		o.waiting.Add(ctx, -int64(end.Locks), metric.WithAttributes(class...))
	}

	if duration, ok := o.durations[end.Operation]; ok {
		duration.Record(ctx, end.Duration.Seconds(), metric.WithAttributes(class...), metric.WithAttributes(attrs...))
	}

	if end.Operation != pglocker.OperationRenew {
		endSpan(ctx, end.Token, outcome == "error" || outcome == "lost", attrs)
	}
}

// HoldStart begins the span of a hold. Spans that begin in the lock's context are its children.
func (o *Observer) HoldStart(ctx context.Context, start pglocker.HoldStart) context.Context {
	class := o.classes.of(start.Subject)
	o.held.Add(ctx, int64(start.Locks), metric.WithAttributes(class...))

	return o.startSpan(ctx, "hold", class, start.Locks)
}

// HoldEnd counts a hold, and ends its span.
func (o *Observer) HoldEnd(ctx context.Context, end pglocker.HoldEnd) {
	ctx = context.WithoutCancel(ctx)
	class, outcome := o.classes.of(end.Subject), holdOutcomeOf(end.Err)
	attrs := result(outcome, end.Err)

	o.held.Add(ctx, -int64(end.Locks), metric.WithAttributes(class...))
	o.hold.Record(ctx, end.HeldFor.Seconds(), metric.WithAttributes(class...), metric.WithAttributes(attrs...))
	endSpan(ctx, end.Token, outcome == "lost", attrs)
}

// LockLost counts lost locks.
func (o *Observer) LockLost(lost pglocker.LockLost) {
	o.lost.Add(context.Background(), int64(lost.Locks),
		metric.WithAttributes(o.classes.of(lost.Subject)...), metric.WithAttributes(reason(lost.Gone)))
}

// LockRenewed notes how near a loss was.
func (o *Observer) LockRenewed(renewed pglocker.LockRenewed) {
	o.margin.Record(context.Background(), renewed.Left.Seconds()/renewed.TTL.Seconds(),
		metric.WithAttributes(o.classes.of(renewed.Subject)...))
}

// BatchSent notes the size of a batch.
func (o *Observer) BatchSent(batch pglocker.BatchSent) {
	o.batch.Record(context.Background(), int64(batch.Locks), metric.WithAttributes(attribute.String("operation", string(batch.Operation))))
}

// ListenerChanged counts Lockers by how their waiters learn of releases.
func (o *Observer) ListenerChanged(changed pglocker.ListenerChanged) {
	o.listens(changed.From, -1)
	o.listens(changed.To, 1)
}

func (o *Observer) listens(state pglocker.ListenerState, lockers int64) {
	if state != pglocker.ListenerResting {
		o.listener.Add(context.Background(), lockers, metric.WithAttributes(attribute.String("state", string(state))))
	}
}
