//go:build unix

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

// The environment of a worker process. The URL may hold a password, which the
// arguments of a process show to everybody.
const (
	envWorker = "PGLOCKER_DEMO_WORKER"
	envURL    = "PGLOCKER_DEMO_URL"
	envSchema = "PGLOCKER_DEMO_SCHEMA"
)

// What workers report, one JSON object a line.
const (
	evStarted = "started" // the process is up
	evGranted = "granted" // it holds the lock
	evWrote   = "wrote"   // the resource took a write
	evRefused = "refused" // the resource refused a write
	evLost    = "lost"    // the lock's context ended; Detail is the cause
	evDone    = "done"    // its turn is over, and it is about to release
	evFailed  = "failed"  // something else; Detail says what
)

type event struct {
	Kind   string    `json:"kind"`
	Worker string    `json:"worker"`
	At     time.Time `json:"at"`
	Token  int64     `json:"token,omitempty"`
	// IsLost: the cause of the lock's end matches ErrLockLost.
	IsLost bool   `json:"is_lost,omitempty"`
	Detail string `json:"detail,omitempty"`
}

const (
	turn      = 1200 * time.Millisecond // how long a worker keeps the lock
	rest      = 2 * time.Second         // before it competes again: the others get their turn
	writeTick = 200 * time.Millisecond
)

// worker competes for the lock, and writes to the resource while it has it.
type worker struct {
	name   string
	db     *sql.DB
	schema string
	locker *pglocker.Locker
	events *json.Encoder
}

// workerMain ends when its standard input does: the demo has closed it, or is
// gone.
func workerMain(name string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)

		cancel()
	}()

	w := &worker{name: name, schema: os.Getenv(envSchema), events: json.NewEncoder(os.Stdout)}

	if err := w.run(ctx, os.Getenv(envURL)); err != nil && ctx.Err() == nil {
		w.report(event{Kind: evFailed, Detail: err.Error()})

		return 1
	}

	return 0
}

func (w *worker) run(ctx context.Context, address string) (err error) {
	if w.db, err = sql.Open("pgx", address); err != nil {
		return err
	}

	defer func() { err = errors.Join(err, w.db.Close()) }()

	w.locker, err = pglocker.New(w.db, &pglocker.Config{Scheme: w.schema, Owner: "worker " + w.name})
	if err != nil {
		return err
	}

	w.report(event{Kind: evStarted})

	for ctx.Err() == nil {
		err := w.locker.Do(ctx, lockID, ttl, renewInterval, w.task, pglocker.WithWait(patience))
		if err != nil && !errors.Is(err, pglocker.ErrLockLost) {
			return err
		}

		sleep(ctx, rest)
	}

	return nil
}

// task is what the lock is for.
func (w *worker) task(ctx context.Context) error {
	lock, ok := pglocker.FromContext(ctx)
	if !ok {
		return errors.New("not called by Do")
	}

	token := lock.Token()
	w.report(event{Kind: evGranted, Token: token})

	over := time.Now().Add(turn)

	tick := time.NewTicker(writeTick)
	defer tick.Stop()

	for {
		// Asked before the write: so one that has lost the lock tries once more, as a
		// program would that doesn't look at its context.
		lost := ctx.Err() != nil

		accepted, err := w.write(context.WithoutCancel(ctx), token)
		if err != nil {
			return err
		}

		if !accepted && !lost {
			<-ctx.Done() // refused before it knew: any moment now

			lost = true
		}

		switch {
		case lost:
			cause := context.Cause(ctx)
			w.report(event{
				Kind: evLost, Token: token, Detail: cause.Error(),
				IsLost: errors.Is(cause, pglocker.ErrLockLost),
			})

			return cause
		case time.Now().After(over):
			w.report(event{Kind: evDone, Token: token})

			return nil
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// write changes the resource, unless it has already seen a larger token: the
// check that makes a lock safe against a holder that doesn't know that it has
// lost it. The check and the change are one statement.
func (w *worker) write(ctx context.Context, token int64) (accepted bool, err error) {
	var number int64

	err = w.db.QueryRowContext(ctx, strings.ReplaceAll(`
WITH accepted AS (
    UPDATE {schema}.resource
       SET highest_token = $1, writes = writes + 1
     WHERE highest_token <= $1
    RETURNING writes
)
INSERT INTO {schema}.journal (number, token, worker)
SELECT writes, $1, $2 FROM accepted
RETURNING number`, "{schema}", w.schema), token, w.name).Scan(&number)

	switch {
	case errors.Is(err, sql.ErrNoRows):
		w.report(event{Kind: evRefused, Token: token})

		return false, nil
	case err != nil:
		return false, err
	}

	w.report(event{Kind: evWrote, Token: token})

	return true, nil
}

func (w *worker) report(e event) {
	e.Worker, e.At = w.name, time.Now()
	_ = w.events.Encode(e) // if nobody listens any more, the input has ended as well
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
