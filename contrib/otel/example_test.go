package pglockerotel_test

import (
	"context"
	"database/sql"
	"log"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/ismurov/pglocker"
	pglockerotel "github.com/ismurov/pglocker/contrib/otel"
)

// It serves the metrics of a program at /metrics.
func Example() {
	var (
		ctx = context.Background()
		db  *sql.DB // is opened as always
	)

	reader, err := exporter.New()
	if err != nil {
		log.Fatal(err)
	}

	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))

	observer, err := pglockerotel.NewObserver(pglockerotel.WithClass(func(_ pglocker.Kind, name string) string {
		class, _, _ := strings.Cut(name, "/") // "invoice" of "invoice/4711"
		return class
	}))
	if err != nil {
		log.Fatal(err)
	}

	locker, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{Observer: observer})
	if err != nil {
		log.Fatal(err)
	}

	http.Handle("/metrics", promhttp.Handler())

	_ = locker // takes locks
}
