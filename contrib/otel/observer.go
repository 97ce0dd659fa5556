package pglockerotel

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/ismurov/pglocker"
)

const scope = "github.com/ismurov/pglocker/contrib/otel"

// Observer is a [pglocker.Observer]. Its methods are for a Locker to call. Make it with [NewObserver].
type Observer struct {
	instruments

	tracer  trace.Tracer
	classes classes
	// operations and states are the labels of what has no class.
	operations map[pglocker.Operation]labels
	states     map[pglocker.ListenerState]labels
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
		classify: options.classify, appeared: o.appeared, none: newClass(),
		seen: make(map[pglocker.Kind]map[string]*class),
	}

	o.operations = make(map[pglocker.Operation]labels)
	for _, op := range []pglocker.Operation{pglocker.OperationAcquire, pglocker.OperationRenew, pglocker.OperationRelease} {
		o.operations[op] = newLabels(attribute.String("operation", string(op)))
	}

	o.states = make(map[pglocker.ListenerState]labels)
	for _, state := range []pglocker.ListenerState{pglocker.ListenerHearing, pglocker.ListenerPolling} {
		o.states[state] = newLabels(attribute.String("state", string(state)))
		o.listens(state, 0)
	}

	return o, nil
}

// appeared begins the series of a class at 0. A series that begins at 1 doesn't increase for Prometheus, and an
// election without a leader is one whose series is 0 in all processes.
func (o *Observer) appeared(c *class) {
	ctx := context.Background()

	o.held.Add(ctx, 0, c.add...)
	o.waiting.Add(ctx, 0, c.add...)

	for _, loss := range c.lost {
		o.lost.Add(ctx, 0, loss.add...)
	}
}

// spanKey is the key of the span that this package has begun last. Another observer may have begun one since.
type spanKey struct{}

func (o *Observer) startSpan(ctx context.Context, name string, c *class, locks int) context.Context {
	ctx, span := o.tracer.Start(ctx, "pglocker "+name, trace.WithAttributes(c.attrs...), trace.WithAttributes(attribute.Int("locks", locks)))

	return context.WithValue(ctx, spanKey{}, span)
}

// endSpan tells nothing of an error but its outcome and its type: its text names locks and owners.
func endSpan(ctx context.Context, token int64, failed bool, r result) {
	span, ok := ctx.Value(spanKey{}).(trace.Span)
	if !ok {
		return
	}

	if span.IsRecording() {
		span.SetAttributes(r.attributes()...)

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
	if start.Operation == pglocker.OperationRenew {
		return ctx
	}

	c := o.classes.of(start.Subject)
	if start.Operation == pglocker.OperationWait {
		o.waiting.Add(ctx, int64(start.Locks), c.add...)
	}

	return o.startSpan(ctx, string(start.Operation), c, start.Locks)
}

// lasting is a context for instruments, which needn't count for one that has ended.
func lasting(ctx context.Context) context.Context {
	if ctx.Err() == nil {
		return ctx
	}

	return context.WithoutCancel(ctx)
}

// OperationEnd counts an operation, and ends its span.
func (o *Observer) OperationEnd(ctx context.Context, end pglocker.OperationEnd) {
	ctx = lasting(ctx)
	c, r := o.classes.of(end.Subject), resultOf(outcomeOf(end), end.Err)

	if end.Operation == pglocker.OperationWait {
		o.waiting.Add(ctx, -int64(end.Locks), c.add...)
	}

	if duration, ok := o.durations[end.Operation]; ok {
		duration.Record(ctx, end.Duration.Seconds(), c.of(r).record...)
	}

	if end.Operation != pglocker.OperationRenew {
		endSpan(ctx, end.Token, r.outcome == "error" || r.outcome == "lost", r)
	}
}

// HoldStart begins the span of a hold. Spans that begin in the lock's context are its children.
func (o *Observer) HoldStart(ctx context.Context, start pglocker.HoldStart) context.Context {
	c := o.classes.of(start.Subject)
	o.held.Add(ctx, int64(start.Locks), c.add...)

	return o.startSpan(ctx, "hold", c, start.Locks)
}

// HoldEnd counts a hold, and ends its span.
func (o *Observer) HoldEnd(ctx context.Context, end pglocker.HoldEnd) {
	ctx = lasting(ctx)
	c, r := o.classes.of(end.Subject), resultOf(holdOutcomeOf(end.Err), end.Err)

	o.held.Add(ctx, -int64(end.Locks), c.add...)
	o.hold.Record(ctx, end.HeldFor.Seconds(), c.of(r).record...)
	endSpan(ctx, end.Token, r.outcome == "lost", r)
}

// LockLost counts lost locks.
func (o *Observer) LockLost(lost pglocker.LockLost) {
	o.lost.Add(context.Background(), int64(lost.Locks), o.classes.of(lost.Subject).lost[lost.Gone].add...)
}

// LockRenewed notes how near a loss was.
func (o *Observer) LockRenewed(renewed pglocker.LockRenewed) {
	o.margin.Record(context.Background(), renewed.Left.Seconds()/renewed.TTL.Seconds(), o.classes.of(renewed.Subject).record...)
}

// BatchSent notes the size of a batch.
func (o *Observer) BatchSent(batch pglocker.BatchSent) {
	op, ok := o.operations[batch.Operation]
	if !ok { // of a later version
		op = newLabels(attribute.String("operation", string(batch.Operation)))
	}

	o.batch.Record(context.Background(), int64(batch.Locks), op.record...)
}

// ListenerChanged counts Lockers by how their waiters learn of releases.
func (o *Observer) ListenerChanged(changed pglocker.ListenerChanged) {
	o.listens(changed.From, -1)
	o.listens(changed.To, 1)
}

func (o *Observer) listens(state pglocker.ListenerState, lockers int64) {
	if labels, ok := o.states[state]; ok { // not those of one that rests
		o.listener.Add(context.Background(), lockers, labels.add...)
	}
}
