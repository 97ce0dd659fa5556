// Package suite runs faults against clusters and has the oracles judge what happened.
package suite

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

const (
	clients = 4
	// clientsOfMany is how many there are where several servers work for each.
	clientsOfMany = 3
	think         = 10 * time.Millisecond
	// controlThink is a longer pause before a write, so that pauses hit something in the control.
	controlThink = 60 * time.Millisecond

	// warmUp is how long there is traffic before the fault. coolDown is the same after it, where
	// nothing had to be healed.
	warmUp   = 200 * time.Millisecond
	coolDown = 300 * time.Millisecond

	// hostClockError is how far the wall clock of this machine may move against its
	// monotonic clock during a run.
	hostClockError = 3 * time.Millisecond
)

// mostKept bounds the failures of which everything is kept.
const mostKept = 20

// Job is one run to make.
type Job struct {
	Fault fault.Fault
	// Control: writers rely on exclusion alone, and the run must show what that costs.
	Control  bool
	Duration time.Duration
	Seed     uint64
}

// Name is what the job is called on the command line.
func (j Job) Name() string { return j.Fault.Name }

// Suite runs jobs.
type Suite struct {
	// Folder is where histories are written, for as long as their jobs last. Those of the
	// first failures are copied to Failures.
	Folder, Failures string

	server *pgtesting.Server
	kept   int
}

// Close stops the server. Another run starts another.
func (s *Suite) Close() error {
	if s.server == nil {
		return nil
	}

	err := s.server.Stop()
	s.server = nil

	return err
}

// Run makes one run and judges it. Result.Err is set if it could not be made.
func (s *Suite) Run(ctx context.Context, job Job) *Result {
	began := time.Now()
	result := &Result{Job: job}
	folder := filepath.Join(s.Folder, job.Name(), "history")

	run, err := s.make(ctx, result, folder)

	switch {
	case errors.Is(err, errSkipped):
		result.Skipped = err
	case err != nil:
		// The server may be in any state: the next run starts another.
		result.Err = errors.Join(err, s.Close())
	default:
		result.judge(run)
	}

	// An interrupted run shows nothing.
	if result.Failed() && ctx.Err() == nil && s.kept < mostKept {
		s.kept++
		result.Err = errors.Join(result.Err, s.keep(result, run, folder))
	}

	result.Err = errors.Join(result.Err, os.RemoveAll(filepath.Dir(folder)))
	result.Took = time.Since(began)

	return result
}

// make makes the run of a result's job, and counts what was broken.
func (s *Suite) make(ctx context.Context, result *Result, folder string) (_ *oracle.Run, err error) {
	job := result.Job

	options := cluster.Options{
		Seed: job.Seed, Clients: clients, Fenced: !job.Control, Think: think, Pooled: job.Fault.Pooled, Waits: job.Fault.Waits,
		Middle: job.Fault.Middle, Prepare: job.Fault.Prepare,
		Extras: traffic.Extras{
			Long: job.Fault.Long,
			// The audit of that table can't judge a clock that is set.
			Bare:    !job.Fault.Clock && !job.Fault.Waits && !job.Control && !job.Fault.Distributed,
			Spared:  job.Fault.Bears != nil,
			Recipes: !job.Fault.Waits && !job.Control,
			Plain:   job.Fault.Distributed,
		},
	}
	if job.Control {
		options.Think = controlThink
	}

	if job.Fault.Distributed {
		options.Clients = clientsOfMany
	}

	if job.Fault.Begin != nil {
		options.Begin = func(c *cluster.Cluster) { job.Fault.Begin(c, rand.New(rand.NewPCG(job.Seed, 2))) }
	}

	server, stop, inject, err := s.serverFor(ctx, job, filepath.Dir(folder), &options)
	if err != nil {
		return nil, err
	}

	defer func() { err = errors.Join(err, stop()) }()

	c, err := cluster.Start(ctx, server, folder, options)
	if errors.Is(err, cluster.ErrNoPooler) {
		return nil, fmt.Errorf("%w: %w", errSkipped, err)
	}

	if err != nil {
		return nil, err
	}

	closed := false

	defer func() {
		if !closed {
			err = errors.Join(err, c.Close())
		}
	}()

	run := &oracle.Run{
		WallOffset: history.WallOffset(), Undisturbed: job.Fault.Waits, Extras: options.Extras, Bears: job.Fault.Bears,
		Pruned: job.Fault.Prunes,
	}

	time.Sleep(warmUp)

	injecting, cancel := context.WithTimeout(ctx, job.Duration)
	defer cancel()

	if err := inject(injecting, c, rand.New(rand.NewPCG(job.Seed, 1))); err != nil {
		return nil, err
	}

	result.Injected, result.Stops = c.Injected.Load(), c.Stops()

	if job.Fault.Waits {
		time.Sleep(coolDown)
	} else if err := awaitRecovery(ctx, c, options.Extras); err != nil {
		return nil, err
	}

	if err := c.Quit(ctx); err != nil {
		return nil, err
	}

	// What comes now is the coordinator's own, and not under test.
	if run.Audit, err = c.Audit(ctx); err != nil {
		return nil, err
	}

	if err := c.Regrant(ctx); err != nil {
		return nil, err
	}

	if moved := time.Duration(history.WallOffset() - run.WallOffset); moved.Abs() > hostClockError {
		return nil, fmt.Errorf("suite: this machine's clock was set by %s meanwhile", moved)
	}

	if run.Writes, err = c.Writes(ctx); err != nil {
		return nil, err
	}

	closed = true
	if err := c.Close(); err != nil {
		return nil, err
	}

	if run.History, err = history.Load(folder); err != nil {
		return nil, err
	}

	traffic.NameBare(run.History)
	traffic.NameGrants(run.History, run.Audit)

	return run, nil
}

// SeedOf is the seed of one run. It doesn't depend on what else is run.
func SeedOf(seed uint64, name string) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, seed, name)

	return h.Sum64()
}
