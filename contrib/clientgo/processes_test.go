package pglockerclientgo_test

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker/lockertest"
	"github.com/ismurov/pglocker/pgtesting"
)

// worker is a candidate, a process with client-go's elector.
type worker struct {
	name   string
	cmd    *exec.Cmd
	input  io.WriteCloser
	events chan event
}

// start starts a worker. It ends when the test does, however that ends.
func start(t *testing.T, name, url string, env ...string) *worker {
	t.Helper()

	w := &worker{name: name, cmd: exec.Command(os.Args[0]), events: make(chan event, 1000)}
	w.cmd.Env = append(os.Environ(), envName+"="+name, envURL+"="+url, envBeats+"="+url,
		envLease+"="+leaseDuration, envRenew+"="+renewDeadline, envRetry+"="+retryPeriod,
		envMargin+"=0s")
	w.cmd.Env = append(w.cmd.Env, env...)

	logs, err := os.Create(t.TempDir() + "/log")
	must(t, err)

	w.cmd.Stderr = logs

	w.input, err = w.cmd.StdinPipe()
	must(t, err)
	output, err := w.cmd.StdoutPipe()
	must(t, err)
	must(t, w.cmd.Start())

	done := make(chan struct{})

	go func() {
		defer close(done)

		for lines := bufio.NewScanner(output); lines.Scan(); {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				w.events <- e
			}
		}
	}()

	t.Cleanup(func() {
		_ = w.cmd.Process.Signal(syscall.SIGCONT)
		_ = w.input.Close()

		<-done

		_ = w.cmd.Wait() // it may have been killed
		_ = logs.Close()

		if said, err := os.ReadFile(logs.Name()); err == nil && t.Failed() {
			t.Logf("%s logged\n%s", name, said)
		}
	})

	return w
}

func (w *worker) order(t *testing.T, what string) {
	t.Helper()

	_, err := fmt.Fprintln(w.input, what)
	must(t, err)
}

func (w *worker) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	must(t, w.cmd.Process.Signal(sig))
}

// await returns the worker's next event of a kind.
func (w *worker) await(t *testing.T, what string) event {
	t.Helper()

	for {
		if e := receive(t, w.name+" "+what, w.events); e.What == what {
			return e
		}
	}
}

// startLeading starts two workers, of which the first leads. It has the environment.
func startLeading(t *testing.T, url string, env ...string) (leader, next *worker, token int64) {
	t.Helper()

	leader = start(t, "first", url, env...)
	leader.order(t, run)
	token = leader.await(t, leads).Token

	next = start(t, "next", url)
	next.order(t, run)

	return leader, next, token
}

// awaitBeat waits until a leader writes, later than a time, and returns who. If token isn't 0, the leader is that of the
// token.
func awaitBeat(t *testing.T, db *sql.DB, token int64, after time.Time) (string, int64) {
	t.Helper()

	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var (
			name string
			of   int64
		)

		err := db.QueryRowContext(t.Context(), `
			SELECT name, token FROM beats WHERE (token = $1 OR $1 = 0) AND at > $2 ORDER BY at DESC LIMIT 1`, token, after).Scan(&name, &of)
		if err == nil {
			return name, of
		}

		if time.Now().After(deadline) {
			t.Fatal("no leader writes: ", err)
		}
	}
}

// awaitNext waits until a worker leads and writes. It returns its token, and fails the test if that isn't larger than
// the one before.
func (w *worker) awaitNext(t *testing.T, db *sql.DB, before int64) int64 {
	t.Helper()

	token := w.await(t, leads).Token
	if token <= before {
		t.Errorf("after the token %d, the next leader has %d", before, token)
	}

	awaitBeat(t, db, token, time.Time{})

	return token
}

// pause is how many beats a leader may write too late: what was under way when its process was stopped, or waited for a
// busy machine.
const pause = 8

// wantNeverTwo fails the test if a leader wrote when a later one had written, but for some beats.
func wantNeverTwo(t *testing.T, db *sql.DB, some int) {
	t.Helper()

	var stale, all int

	must(t, db.QueryRowContext(t.Context(), `
		WITH terms AS (SELECT token, min(at) AS began FROM beats GROUP BY token)
		SELECT count(*) FILTER (WHERE EXISTS (SELECT FROM terms WHERE terms.token > beats.token AND began <= at)), count(*)
		  FROM beats`).Scan(&stale, &all))

	t.Logf("%d beats, %d of them stale", all, stale)

	if stale > some {
		t.Errorf("former leaders wrote %d times after a later one", stale)
	}
}

func TestTheLeaderIsKilled(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)
	leader, next, token := startLeading(t, url)
	awaitBeat(t, db, token, time.Time{})

	leader.signal(t, syscall.SIGKILL)
	next.awaitNext(t, db, token)
	wantNeverTwo(t, db, 0)
}

// TestTheLeaderIsStopped: a leader that is stopped for longer than its lease, and continues, has lost it.
func TestTheLeaderIsStopped(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)
	leader, next, token := startLeading(t, url)
	awaitBeat(t, db, token, time.Time{})

	leader.signal(t, syscall.SIGSTOP)
	next.awaitNext(t, db, token)
	leader.signal(t, syscall.SIGCONT)

	leader.await(t, ended)
	wantNeverTwo(t, db, pause)
}

// TestTheLeaderFindsAConflict: the lease was taken from a leader that doesn't know it.
func TestTheLeaderFindsAConflict(t *testing.T) {
	t.Parallel()

	for what, env := range map[string][]string{
		"until lost": {envRenew + "=55s"},
		"plain":      {envPlain + "=plain"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()

			url := databases.NewDatabase(t).String()
			db := databases.Open(t, url)
			leader, next, token := startLeading(t, url, append(env, envLease+"=60s")...)
			awaitBeat(t, db, token, time.Time{})

			leader.signal(t, syscall.SIGSTOP)

			// A renewal that was under way may come after the first.
			deadline := time.Now().Add(2 * time.Minute)

			for taken := false; !taken; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("in vain for two minutes: the next takes the lease")
				}

				must(t, db.QueryRowContext(t.Context(), `
					WITH ended AS (UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp()
					                WHERE owner LIKE 'first#%' AND expires_at > clock_timestamp())
					SELECT EXISTS (SELECT FROM pglocker.lock_statuses WHERE owner LIKE 'next#%')`).Scan(&taken))
			}

			next.awaitNext(t, db, token)
			leader.signal(t, syscall.SIGCONT)

			leader.await(t, conflict)
			leader.await(t, ended) // without UntilLost it goes on for RenewDeadline

			if what == "until lost" {
				wantNeverTwo(t, db, 1000) // until its next renewal. In 55 s there would be thousands more.
			}
		})
	}
}

// TestTheLeaderIsCutOff: a leader that gets no answer stops before another leads. With UntilLost it does so even if the
// times would let it lead for longer than its lease.
func TestTheLeaderIsCutOff(t *testing.T) {
	t.Parallel()

	for what, env := range map[string][]string{
		"until lost": {envRetry + "=5s", envRenew + "=9.5s", envMargin + "=3s"},
		"plain":      {envPlain + "=plain"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()

			url := databases.NewDatabase(t).String()
			db := databases.Open(t, url)
			proxy, through := newProxy(t, url)
			leader, next, token := startLeading(t, url, append(env, envURL+"="+through)...)
			awaitBeat(t, db, token, time.Time{})

			proxy.holdBack()

			token = next.awaitNext(t, db, token)

			leader.await(t, ended)
			wantNeverTwo(t, db, pause)

			// It takes part again.
			proxy.letGo()
			leader.order(t, run)
			next.order(t, stop)
			leader.awaitNext(t, db, token)
			wantNeverTwo(t, db, pause)
		})
	}
}

// TestReleaseOnCancel: a leader that has ended leaves no lease.
func TestReleaseOnCancel(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)
	leader, next, token := startLeading(t, url)
	awaitBeat(t, db, token, time.Time{})

	leader.order(t, stop)
	leader.await(t, ended)

	var left bool

	must(t, db.QueryRowContext(t.Context(), `
		SELECT EXISTS (SELECT FROM pglocker.lock_statuses WHERE owner LIKE 'first#%' AND expires_at > clock_timestamp())`).Scan(&left))

	if left {
		t.Error("the leader has ended, and its lease goes on")
	}

	next.awaitNext(t, db, token)
	wantNeverTwo(t, db, 0)
}

// TestTheDatabaseRestarts: at once, and when the leader has given up.
func TestTheDatabaseRestarts(t *testing.T) {
	t.Parallel()

	server := lockertest.StartServer(t)

	db, err := sql.Open("pgx", server.URL())
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	must(t, migrate(t.Context(), db))

	leader, next, token := startLeading(t, server.URL())
	awaitBeat(t, db, token, time.Time{})

	must(t, server.Kill())
	must(t, server.Start(t.Context()))

	name, after := awaitBeat(t, db, 0, time.Now())
	t.Logf("after a restart %s leads, with the token %d after %d", name, after, token)

	if name != leader.name { // the restart took longer than the leader has patience for
		leader.await(t, ended)
		leader.order(t, run)
		leader, next = next, leader
		token = leader.await(t, leads).Token
	}

	if after != token {
		t.Errorf("%s leads with the token %d, and said %d", name, after, token)
	}

	must(t, server.Shutdown(t.Context(), pgtesting.FastShutdown))
	leader.await(t, ended)
	must(t, server.Start(t.Context()))

	next.awaitNext(t, db, token)
	wantNeverTwo(t, db, pause)
}

// TestTwoRace: 100 times two candidates begin at once.
func TestTwoRace(t *testing.T) {
	t.Parallel()

	const rounds = 100

	url := databases.NewDatabase(t).String()
	retry := envRetry + "=20ms"
	workers := []*worker{start(t, "a", url, retry), start(t, "b", url, retry)}

	var (
		last int64
		won  = map[string]int{}
	)

	for range rounds {
		for _, w := range workers {
			w.order(t, run)
		}

		var e event

		first, second := workers[0], workers[1]
		for e.What != leads {
			select {
			case e = <-workers[0].events:
				first, second = workers[0], workers[1]
			case e = <-workers[1].events:
				first, second = workers[1], workers[0]
			case <-time.After(2 * time.Minute):
				t.Fatal("neither leads")
			}
		}

		won[first.name]++

		for _, w := range []*worker{first, second} {
			if w == second {
				e = w.await(t, leads)
			}

			if e.What != leads || e.Token <= last {
				t.Fatalf("after the token %d: %+v", last, e)
			}

			last = e.Token
			w.order(t, stop)
			w.await(t, ended)
		}
	}

	t.Log("won: ", won)
	wantNeverTwo(t, databases.Open(t, url), 0)
}
