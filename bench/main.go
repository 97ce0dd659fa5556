// Bench measures pglocker beside other ways of locking: what a careful person writes by
// hand (the floor), session advisory locks, redislock on Redis and etcd's Mutex. pgbench
// shows the limit of the server. It starts its own servers on free ports, and removes them
// at the end and when it is interrupted.
//
//	go run . [-quick] [-only W1,W2] [-rounds N] [-results FILE] [-report FILE]
//
// It needs a Unix system. It measures the CPU of the servers if there is a /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/reach"
	"github.com/ismurov/pglocker/bench/internal/report"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/server"
	"github.com/ismurov/pglocker/bench/internal/workload"
)

type options struct {
	plan    workload.Plan
	only    []workload.Workload
	results string
	report  string
}

func main() {
	log.SetFlags(0)

	if len(os.Args) == 3 && os.Args[1] == workload.ChildArg {
		if err := workload.Child(os.Args[2], os.Stdin, os.Stdout); err != nil {
			log.Fatal(err)
		}

		return
	}

	o, err := parse(os.Args[1:])
	if err != nil {
		log.Fatal(err)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o)

	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}

	stop()

	if err != nil {
		log.Fatal("bench: ", err)
	}
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	quick := flags.Bool("quick", false, "measure for about a minute")
	only := flags.String("only", "", "the workloads to run, separated by commas; empty: all")
	rounds := flags.Int("rounds", 0, "rounds of every workload but W4, W6, W9 and W12; 0: as planned")
	flags.StringVar(&o.results, "results", "", "where to write the benchmark lines; empty: nowhere")
	flags.StringVar(&o.report, "report", "", "where to write the report, with charts in img beside it; empty: nowhere")

	if err := flags.Parse(args); err != nil {
		return o, err
	}

	o.plan = workload.Full
	if *quick {
		o.plan = workload.Quick
	}

	if *rounds > 0 {
		p := &o.plan
		p.Rounds, p.OtherRounds, p.HandOverRounds, p.TableRounds, p.FailedRounds, p.FreshRounds = *rounds, 0, *rounds, *rounds, *rounds, *rounds
		p.SeparateRounds, p.ColdRounds = *rounds, *rounds
	}

	for _, w := range workload.Workloads {
		if *only == "" || slices.Contains(strings.Split(*only, ","), w.Name) {
			o.only = append(o.only, w)
		}
	}

	if len(o.only) == 0 {
		return o, fmt.Errorf("no workload is called %q", *only)
	}

	return o, nil
}

func run(ctx context.Context, o options) (err error) {
	began := time.Now()

	var out io.Writer = io.Discard

	if o.results != "" {
		if err := os.MkdirAll(filepath.Dir(o.results), 0o755); err != nil {
			return err
		}

		file, err := os.Create(o.results)
		if err != nil {
			return err
		}
		defer file.Close()

		out = file
	}

	machine := report.ThisMachine()
	b := &workload.Bench{
		Plan:   o.plan,
		Log:    result.NewLog(out, machine.CPU),
		Say:    func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
		Chosen: make(map[string]contender.Options),
	}

	stop, err := startServers(ctx, b)
	defer func() { err = errors.Join(err, stop()) }()

	if err != nil {
		return err
	}

	settings, err := report.Settings(ctx, b)
	if err != nil {
		return err
	}

	if err := b.Prepare(ctx); err != nil {
		return err
	}

	failed := runAll(ctx, b, began, o.only)
	if ctx.Err() != nil {
		return ctx.Err()
	}

	took := time.Since(began)
	reaches := reach.Of(b.Log, o.plan)

	b.Say("\n=== what was to be reached, and what was measured (after %v)\n", took.Round(time.Second))
	reach.Print(os.Stdout, reaches)

	if o.report != "" {
		err = report.Write(o.report, report.Input{
			Plan:     o.plan,
			Log:      b.Log,
			Machine:  machine,
			Versions: versions(b),
			Settings: settings,
			Chosen:   b.Chosen,
			Reaches:  reaches,
			Failed:   failed,
			Took:     took.Round(time.Second),
			Day:      began,
		})
	}

	return errors.Join(append(failed, err, b.Log.Err())...)
}

// workloadLimit is how long a workload may take. The longest takes two minutes.
const workloadLimit = 10 * time.Minute

// runAll runs workloads until ctx ends. What one of them fails in, the others needn't: it returns all errors.
func runAll(ctx context.Context, b *workload.Bench, began time.Time, workloads []workload.Workload) (failed []error) {
	for _, w := range workloads {
		b.Say("\n=== %s, %s (after %v)", w.Name, w.Title, time.Since(began).Round(time.Second))

		within, cancel := context.WithTimeout(ctx, workloadLimit)
		err := w.Run(b, within)

		cancel()

		if ctx.Err() != nil {
			break
		}

		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", w.Name, err))
			b.Say("  failed: %v", err)
		}
	}

	return failed
}

func versions(b *workload.Bench) report.Versions {
	v := report.Versions{Postgres: b.Postgres.Version(), Pgbench: b.HasPgbench()}

	if b.Redis != nil {
		v.Redis = b.Redis.Version
	}

	if b.Etcd != nil {
		v.Etcd = b.Etcd.Version
	}

	return v
}

// startServers starts what is installed. stop ends all of it, also after an error.
func startServers(ctx context.Context, b *workload.Bench) (stop func() error, err error) {
	var stops []func() error

	stop = func() error {
		var err error
		for _, s := range slices.Backward(stops) {
			err = errors.Join(err, s())
		}

		return err
	}

	if b.Postgres, err = server.StartPostgres(ctx); err != nil {
		return stop, err
	}

	stops = append(stops, b.Postgres.Stop)

	for _, s := range []struct {
		name  string
		start func(context.Context) (*server.Program, error)
		set   func(*server.Program)
	}{
		{"redis-server", server.StartRedis, func(p *server.Program) { b.Redis = p }},
		{"etcd", server.StartEtcd, func(p *server.Program) { b.Etcd = p }},
	} {
		p, err := s.start(ctx)

		switch {
		case errors.Is(err, exec.ErrNotFound):
			b.Say("%s is not installed: it is left out", s.name)

			continue
		case err != nil:
			return stop, err
		}

		s.set(p)

		stops = append(stops, p.Stop)
	}

	return stop, nil
}
