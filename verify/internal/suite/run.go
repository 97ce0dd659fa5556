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

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

const (
	clients = 4
	think   = 10 * time.Millisecond
	// controlThink gives pauses something to hit where nothing fences writers off.
	controlThink = 60 * time.Millisecond

	// warmUp is traffic before the fault, and coolDown after it was healed.
	warmUp   = 200 * time.Millisecond
	coolDown = 300 * time.Millisecond

	// hostClockError is how far the wall clock of this machine may move against its
	// monotonic clock during a run.
	hostClockError = 3 * time.Millisecond
)

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
	// Folder is where histories are written; those of failures are moved to Failures.
	Folder, Failures string

	server *pgtesting.Server
}

// serverOptions make the server one on which commits aren't awaited by default: those
// that have to be, the library itself has to ask for.
func serverOptions() []pgtesting.ServerOption {
	return []pgtesting.ServerOption{
		pgtesting.WithSetting("synchronous_commit", "off"),
		pgtesting.WithSetting("max_connections", "400"),
		pgtesting.WithProgress(os.Stderr),
	}
}

// Close stops the server.
func (s *Suite) Close() error {
	if s.server == nil {
		return nil
	}

	return s.server.Stop()
}

// Run makes one run and judges it. Result.Err is set if it could not be made.
func (s *Suite) Run(ctx context.Context, job Job) *Result {
	began := time.Now()
	result := &Result{Job: job}
	folder := filepath.Join(s.Folder, job.Name(), "history")

	run, err := s.make(ctx, job, folder)

	switch {
	case errors.Is(err, errSkipped):
		result.Skipped = err
	case err != nil:
		// The server may be in any state: the next run starts another.
		result.Err = errors.Join(err, s.Close())
		s.server = nil
	default:
		result.judge(run)
	}

	if result.Failed() {
		result.Err = errors.Join(result.Err, s.keep(result, run, folder))
	}

	result.Took = time.Since(began)

	return result
}

// errSkipped: this machine lacks what the job needs.
var errSkipped = errors.New("suite: skipped")

func (s *Suite) make(ctx context.Context, job Job, folder string) (_ *oracle.Run, err error) {
	server, stop, err := s.serverFor(ctx, job, filepath.Dir(folder))
	if err != nil {
		return nil, err
	}

	defer func() { err = errors.Join(err, stop()) }()

	options := cluster.Options{
		Seed: job.Seed, Clients: clients, Fenced: !job.Control, Think: think, Pooled: job.Fault.Pooled,
	}
	if job.Control {
		options.Think = controlThink
	}

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

	run := &oracle.Run{WallOffset: history.WallOffset(), ClockSteps: job.Fault.Clock}

	time.Sleep(warmUp)

	injecting, cancel := context.WithTimeout(ctx, job.Duration)
	defer cancel()

	if err := job.Fault.Inject(injecting, c, rand.New(rand.NewPCG(job.Seed, 1))); err != nil {
		return nil, err
	}

	time.Sleep(coolDown)

	if err := c.Quit(ctx); err != nil {
		return nil, err
	}

	// What comes now is the coordinator's own, and not under test.
	if run.Audit, err = audit.Load(ctx, c.Admin); err != nil {
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

	run.History, err = history.Load(folder)

	return run, err
}

// serverFor returns the server of all runs, or one of the job's own whose clock can be
// set. stop is called after the job.
func (s *Suite) serverFor(ctx context.Context, job Job, folder string) (_ *pgtesting.Server, stop func() error, err error) {
	if job.Fault.Clock {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, nil, fmt.Errorf("suite: %w", err)
		}

		options, ok, err := fault.FakeClock(folder)
		if err != nil {
			return nil, nil, err
		}

		if !ok {
			return nil, nil, fmt.Errorf("%w: libfaketime is not installed", errSkipped)
		}

		server, err := pgtesting.StartServer(ctx, append(serverOptions(), options...)...)
		if err != nil {
			return nil, nil, err
		}

		return server, server.Stop, nil
	}

	if s.server == nil {
		if s.server, err = pgtesting.StartServer(ctx, serverOptions()...); err != nil {
			return nil, nil, err
		}
	}

	return s.server, func() error { return nil }, nil
}

// SeedOf is the seed of one run, which so doesn't depend on what else is run.
func SeedOf(seed uint64, name string) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, seed, name)

	return h.Sum64()
}
