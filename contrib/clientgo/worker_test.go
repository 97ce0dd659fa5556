package pglockerclientgo_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/ismurov/pglocker"
	pglockerclientgo "github.com/ismurov/pglocker/contrib/clientgo"
)

// The environment of a worker: its identity, the database of the lock, that in which it writes while it leads, its
// LeaseDuration, RenewDeadline, RetryPeriod and SafetyMargin, and whether it runs without UntilLost and ReleaseOnCancel.
const (
	envName   = "PGLOCKERCLIENTGO_NAME"
	envURL    = "PGLOCKERCLIENTGO_URL"
	envBeats  = "PGLOCKERCLIENTGO_BEATS"
	envLease  = "PGLOCKERCLIENTGO_LEASE"
	envRenew  = "PGLOCKERCLIENTGO_RENEW"
	envRetry  = "PGLOCKERCLIENTGO_RETRY"
	envMargin = "PGLOCKERCLIENTGO_MARGIN"
	envPlain  = "PGLOCKERCLIENTGO_PLAIN"
)

// The times of a worker whose environment names no others.
const (
	leaseDuration = "10s"
	renewDeadline = "6s"
	retryPeriod   = "250ms"
)

// event is a line of a worker.
type event struct {
	// What is leads, ended or conflict.
	What string `json:"what"`
	// Token is that of the term.
	Token int64 `json:"token"`
}

// What a worker tells.
const (
	leads    = "leads"    // OnStartedLeading was called
	ended    = "ended"    // Run has returned
	conflict = "conflict" // a renewal met a conflict
)

// What a worker is told. It ends when its input does.
const (
	run  = "run"  // runs for leader
	stop = "stop" // stops to work, and then ends its run
)

type workerProcess struct {
	lock  *pglockerclientgo.Lock
	beats *sql.DB
	// LeaseDuration, RenewDeadline and RetryPeriod.
	lease, renew, retry time.Duration

	mu  sync.Mutex
	out *json.Encoder
}

func workerMain() int {
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)

		return 1
	}

	return 0
}

func work() error {
	db, err := sql.Open("pgx", os.Getenv(envURL))
	if err != nil {
		return err
	}

	beats, err := sql.Open("pgx", os.Getenv(envBeats))
	if err != nil {
		return err
	}

	cfg := &pglocker.Config{Owner: os.Getenv(envName)}
	w := &workerProcess{beats: beats, out: json.NewEncoder(os.Stdout)}

	for name, d := range map[string]*time.Duration{
		envLease: &w.lease, envRenew: &w.renew, envRetry: &w.retry, envMargin: &cfg.SafetyMargin,
	} {
		if *d, err = time.ParseDuration(os.Getenv(name)); err != nil {
			return err
		}
	}

	if w.lock, err = pglockerclientgo.New(db, cfg, election); err != nil {
		return err
	}

	var stopped chan struct{}

	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		switch orders.Text() {
		case run:
			stopped = make(chan struct{})
			if err := w.run(stopped); err != nil {
				return err
			}
		case stop:
			close(stopped)
		}
	}

	return nil
}

// run begins a run of the real elector.
func (w *workerProcess) run(stopped <-chan struct{}) error {
	ctx, cancel := context.WithCancel(context.Background())

	runs, plain := ctx, os.Getenv(envPlain) != ""
	if !plain {
		runs = w.lock.UntilLost(ctx)
	}

	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:            told{w.lock, w},
		LeaseDuration:   w.lease,
		RenewDeadline:   w.renew,
		RetryPeriod:     w.retry,
		ReleaseOnCancel: !plain,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				w.lead(ctx, stopped)
				cancel()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		cancel()

		return err
	}

	go func() {
		elector.Run(runs)
		cancel()
		w.tell(event{What: ended})
	}()

	return nil
}

// lead writes beat after beat while it leads.
func (w *workerProcess) lead(ctx context.Context, stopped <-chan struct{}) {
	token := w.lock.Token()
	w.tell(event{leads, token})

	for ctx.Err() == nil {
		// The database may be down.
		_, _ = w.beats.ExecContext(ctx, `INSERT INTO beats (name, token) VALUES ($1, $2)`, w.lock.Identity(), token)

		select {
		case <-ctx.Done():
		case <-stopped:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *workerProcess) tell(e event) {
	w.mu.Lock()
	defer w.mu.Unlock()

	_ = w.out.Encode(e)
}

// told tells of conflicts.
type told struct {
	*pglockerclientgo.Lock
	w *workerProcess
}

func (t told) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := t.Lock.Update(ctx, record)
	if apierrors.IsConflict(err) {
		t.w.tell(event{What: conflict})
	}

	return err
}
