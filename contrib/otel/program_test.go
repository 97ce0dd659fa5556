package pglockerotel_test

import (
	"context"
	"database/sql"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/ismurov/pglocker"
	pglockerotel "github.com/ismurov/pglocker/contrib/otel"
)

// program is one that uses locks and is scraped. The class of a lock is what comes before its slash.
type program struct {
	t      *testing.T
	db     *sql.DB
	locker *pglocker.Locker
	url    string // of its metrics
	traces *trace.TracerProvider
	spans  *tracetest.SpanRecorder
}

func startProgram(t *testing.T) *program {
	t.Helper()

	registry := prometheus.NewRegistry()
	reader, err := exporter.New(exporter.WithRegisterer(registry))
	must(t, err)

	p := &program{t: t, db: databases.Open(t, databases.NewDatabase(t).String()), spans: tracetest.NewSpanRecorder()}
	metrics := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(metrics.Close)

	p.url = metrics.URL
	p.traces = trace.NewTracerProvider(trace.WithSpanProcessor(p.spans))

	observer, err := pglockerotel.NewObserver(
		pglockerotel.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(reader))),
		pglockerotel.WithTracerProvider(p.traces),
		pglockerotel.WithClass(func(_ pglocker.Kind, name string) string {
			class, _, _ := strings.Cut(name, "/")

			return class
		}),
	)
	must(t, err)

	p.locker, err = pglocker.New(p.db, &pglocker.Config{Observer: observer})
	must(t, err)
	t.Cleanup(func() { must(t, p.locker.Close(context.Background())) })

	return p
}

// scrape returns the value of a series, or how many values a histogram has, and false if there is no such series.
func (p *program) scrape(name string, labels ...string) (value float64, ok bool) {
	p.t.Helper()

	got, err := http.Get(p.url)
	must(p.t, err)

	defer got.Body.Close()

	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(got.Body)
	must(p.t, err)

	for _, m := range families[name].GetMetric() {
		if !has(m, labels) {
			continue
		}

		ok = true
		value += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}

	return value, ok
}

// has reports whether a series has labels, each as name=value.
func has(m *dto.Metric, labels []string) bool {
	for _, want := range labels {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName()+"="+l.GetValue() == want
		}

		if !found {
			return false
		}
	}

	return true
}

func (p *program) awaitValue(want float64, name string, labels ...string) {
	p.t.Helper()

	await(p.t, name+" "+strings.Join(labels, " "), func() bool {
		got, ok := p.scrape(name, labels...)

		return ok && got == want
	})
}

// handOver has a waiter wait until it is notified of releases, and hands the lock over.
func (p *program) handOver(lockID string) {
	p.t.Helper()

	ctx := p.t.Context()

	held, err := p.locker.TryLock(ctx, lockID, time.Minute, pglocker.WithRelockInterval(50*time.Millisecond))
	must(p.t, err)

	granted := make(chan *pglocker.Lock, 1)

	go func() {
		lock, err := p.locker.Lock(ctx, lockID, time.Minute)
		if err != nil {
			p.t.Error(err)
		}

		granted <- lock
	}()

	p.awaitValue(1, "pglocker_waiting", "kind=lock")
	p.awaitValue(1, "pglocker_listener", "state=hearing")
	await(p.t, "it is renewed", func() bool {
		renewed, _ := p.scrape("pglocker_renew_margin")

		return renewed > 0
	})
	must(p.t, held.Unlock(ctx))
	must(p.t, receive(p.t, "the waiter is granted the lock", granted).Unlock(ctx))
}

// lose loses a lock that the database grants another, and one whose row another transaction has locked.
func (p *program) lose(lockID string) {
	p.t.Helper()

	ctx := p.t.Context()

	gone, err := p.locker.TryLock(ctx, lockID, time.Minute, pglocker.WithRelockInterval(20*time.Millisecond))
	must(p.t, err)

	_, err = p.db.ExecContext(ctx, "UPDATE pglocker.lock_statuses SET generation = generation + 2 WHERE lock_id = $1", lockID)
	must(p.t, err)
	receive(p.t, "the lock is lost", gone.Context().Done())

	unconfirmed, err := p.locker.TryLock(ctx, lockID+"-blocked", time.Second)
	must(p.t, err)

	tx, err := p.db.BeginTx(ctx, nil)
	must(p.t, err)

	_, err = tx.ExecContext(ctx, "SELECT FROM pglocker.lock_statuses WHERE lock_id = $1 FOR UPDATE", lockID+"-blocked")
	must(p.t, err)
	receive(p.t, "the lock is lost", unconfirmed.Context().Done())
	must(p.t, tx.Rollback())

	for _, lock := range []*pglocker.Lock{gone, unconfirmed} {
		_ = lock.Unlock(ctx) // says that it was lost
	}
}

// fail has every operation on a lock end with an error: while it is held and renewed, the table refuses to be written.
func (p *program) fail(lockID string) {
	p.t.Helper()

	ctx := p.t.Context()
	failures := func(operation string) float64 {
		n, _ := p.scrape("pglocker_"+operation+"_duration_seconds", "outcome=error", "error_type=P0001")

		return n
	}

	before := make(map[string]float64)
	for _, operation := range []string{"acquire", "wait", "renew", "release"} {
		before[operation] = failures(operation)
	}

	// The waiter asks when the lease is over.
	held, err := p.locker.TryLock(ctx, lockID, 5*time.Second, pglocker.WithRelockInterval(20*time.Millisecond))
	must(p.t, err)

	waiting, stop := context.WithCancel(ctx)
	defer stop()

	ended := make(chan struct{})

	go func() {
		defer close(ended)

		_, _ = p.locker.Lock(waiting, lockID, time.Minute) // fails
	}()

	p.awaitValue(1, "pglocker_waiting", "kind=lock")

	_, err = p.db.ExecContext(ctx, `
		CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
		CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON pglocker.lock_statuses FOR EACH ROW EXECUTE FUNCTION refuse()`)
	must(p.t, err)

	_, err = p.locker.TryLock(ctx, lockID+"-new", time.Minute)
	if err == nil {
		p.t.Error("a table that refuses to be written grants a lock")
	}

	await(p.t, "a renewal fails", func() bool { return failures("renew") > before["renew"] })

	if err := held.Unlock(ctx); err == nil {
		p.t.Error("a table that refuses to be written releases a lock")
	}

	receive(p.t, "the waiter fails", ended)

	for operation, n := range before {
		if failures(operation) == n {
			p.t.Errorf("no operation %s has failed", operation)
		}
	}

	_, err = p.db.ExecContext(ctx, `DROP TRIGGER refuse ON pglocker.lock_statuses`)
	must(p.t, err)
}

// lead is a term of an election, until the returned function is called.
func (p *program) lead(name string) (resign func()) {
	p.t.Helper()

	election, err := p.locker.NewElection(name, time.Minute)
	must(p.t, err)

	ctx, stop := context.WithCancel(p.t.Context())
	leads, ended := make(chan struct{}), make(chan struct{})

	go func() {
		defer close(ended)

		_ = election.Run(ctx, func(ctx context.Context, _ pglocker.Term) error { // says that ctx has ended
			close(leads)
			<-ctx.Done()

			return nil
		})
	}()

	receive(p.t, "it leads", leads)

	return func() {
		stop()
		<-ended
	}
}
