//go:build unix

// Demo shows the locks at work: three processes compete for one lock, the holder
// is killed, and then a holder is paused until its lease is over and another has
// the lock. It ends by itself, and its exit code is 0 only if everything went as
// docs/guarantees.md promises.
//
//	make demo
//	go run ./examples/demo [-url URL] [-svg FILE]
//
// With -svg it also draws what it prints, for the README.
//
// The program starts itself again as its workers. All it makes in the database
// is a schema of its own, dropped at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/examples/internal/database"
)

const (
	lockID        = "nightly-report"
	ttl           = 3 * time.Second
	renewInterval = ttl / 3

	// patience bounds the scenes, so that all of it stays under 30 seconds.
	patience = 20 * time.Second
)

func main() {
	address := flag.String("url", "", database.URLUsage)
	file := flag.String("svg", "", "`FILE` for a picture of what is printed")
	flag.Parse()

	if name := os.Getenv(envWorker); name != "" {
		os.Exit(workerMain(name))
	}

	// SIGPIPE too: a closed output (make demo | head) ends in the same clean-up as
	// Ctrl-C.
	ctx, stop := signal.NotifyContext(context.Background(),
		os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	err := run(ctx, *address, *file)
	// stop only now, so that a second Ctrl-C doesn't interrupt the clean-up.
	stop()

	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address, file string) (err error) {
	out := newPrinter(os.Stdout)

	target, err := database.Choose(ctx, address, out)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, target.Close()) }()

	out.begun = time.Now() // a throwaway server was started until now

	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not done after %s", patience))
	defer cancel()

	stage, err := newStage(ctx, target.URL)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, stage.strike()) }()

	observations, err := play(ctx, stage, out)
	if err != nil {
		return err
	}

	if err := stage.strike(); err != nil {
		return err
	}

	return errors.Join(out.summary(observations), out.savePicture(file))
}
