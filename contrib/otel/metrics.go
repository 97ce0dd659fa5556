package pglockerotel

import (
	"errors"

	"go.opentelemetry.io/otel/metric"

	"github.com/ismurov/pglocker"
)

// instruments are those of one observer.
type instruments struct {
	// durations are those of operations.
	durations     map[pglocker.Operation]metric.Float64Histogram
	hold, margin  metric.Float64Histogram
	batch         metric.Int64Histogram
	held, waiting metric.Int64UpDownCounter
	listener      metric.Int64UpDownCounter
	lost          metric.Int64Counter
}

// Bounds of buckets. The alerts need 0.2 in margins.
var (
	durations = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}
	holds     = []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600}
	margins   = []float64{.05, .1, .2, .3, .4, .5, .6, .7, .8, .9}
	sizes     = []float64{1, 2, 5, 10, 20, 50, 100, 200, 500}
)

func newInstruments(meter metric.Meter) (instruments, error) {
	var (
		in   = instruments{durations: make(map[pglocker.Operation]metric.Float64Histogram)}
		errs error
	)

	histogram := func(name, unit, description string, bounds []float64) metric.Float64Histogram {
		h, err := meter.Float64Histogram(name, metric.WithUnit(unit), metric.WithDescription(description),
			metric.WithExplicitBucketBoundaries(bounds...))
		errs = errors.Join(errs, err)

		return h
	}
	upDown := func(name, unit, description string) metric.Int64UpDownCounter {
		c, err := meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = errors.Join(errs, err)

		return c
	}

	for op, description := range map[pglocker.Operation]string{
		pglocker.OperationAcquire: "Time of a request for a lock outside the line of waiters.",
		pglocker.OperationWait:    "Time in line for a lock.",
		pglocker.OperationRenew:   "Time of a statement that renews leases.",
		pglocker.OperationRelease: "Time of a release, retries included.",
	} {
		in.durations[op] = histogram("pglocker."+string(op)+".duration", "s", description, durations)
	}

	in.hold = histogram("pglocker.hold.duration", "s", "Time from a grant until the holder ceases to believe in it.", holds)
	in.margin = histogram("pglocker.renew.margin", "1", "Share of the TTL for which a lock could still have been trusted when it was renewed.", margins)
	in.held = upDown("pglocker.held", "{lock}", "Locks held now.")
	in.waiting = upDown("pglocker.waiting", "{lock}", "Locks waited for now, by calls in line.")
	in.listener = upDown("pglocker.listener", "{locker}", "Lockers whose waiters are notified, or poll.")

	var err error

	in.batch, err = meter.Int64Histogram("pglocker.batch.size", metric.WithUnit("{lock}"),
		metric.WithDescription("Locks that one statement was for."), metric.WithExplicitBucketBoundaries(sizes...))
	errs = errors.Join(errs, err)

	in.lost, err = meter.Int64Counter("pglocker.lost", metric.WithUnit("{lock}"), metric.WithDescription("Locks lost while they were held."))

	return in, errors.Join(errs, err)
}
