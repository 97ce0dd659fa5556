package pglockerotel_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/ismurov/pglocker"
	pglockerotel "github.com/ismurov/pglocker/contrib/otel"
)

// The environment of a worker: the database, and the length of its lease.
const (
	envURL = "PGLOCKEROTEL_URL"
	envTTL = "PGLOCKEROTEL_TTL"
)

// workerMain is a process that holds a lock, or waits for it, until its standard input ends. It prints the URL of its
// metrics.
func workerMain() int {
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)

		return 1
	}

	return 0
}

func work() error {
	ttl, err := time.ParseDuration(os.Getenv(envTTL))
	if err != nil {
		return err
	}

	db, err := sql.Open("pgx", os.Getenv(envURL))
	if err != nil {
		return err
	}
	defer db.Close()

	reader, err := exporter.New()
	if err != nil {
		return err
	}

	observer, err := pglockerotel.NewObserver(pglockerotel.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(reader))))
	if err != nil {
		return err
	}

	locker, err := pglocker.New(db, &pglocker.Config{Observer: observer})
	if err != nil {
		return err
	}

	address, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer address.Close()

	go func() { _ = http.Serve(address, promhttp.Handler()) }() // until address is closed

	fmt.Printf("http://%s\n", address.Addr())

	ctx, stop := context.WithCancel(context.Background())

	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)

		stop()
	}()

	for ctx.Err() == nil {
		_ = locker.Do(ctx, "lock", ttl, 100*time.Millisecond, func(ctx context.Context) error { // lost, or ctx has ended
			<-ctx.Done()

			return nil
		}, pglocker.WithWait(pglocker.Forever))
	}

	return locker.Close(context.Background())
}
