package pglockercertmagic_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	pglockercertmagic "github.com/ismurov/pglocker/contrib/certmagic"
	"github.com/ismurov/pglocker/lockertest"
	"github.com/ismurov/pglocker/pgtesting"
)

// authority is what workers ask for certificates.
type authority struct {
	*httptest.Server
	issuer *issuer
	// asked are their requests, renewed what came of renewing the lease, and managed those that have the certificate.
	asked   chan *request
	renewed chan renewal
	managed chan int
}

// request is one for a certificate. It is refused unless true is sent to issue.
type request struct {
	pid   int
	issue chan bool
}

// renewal is what came of RenewLockLease. err is "" if it is nil.
type renewal struct {
	pid  int
	err  string
	lost bool // it matches ErrLockLost
}

func newAuthority(t *testing.T) *authority {
	t.Helper()

	a := &authority{
		issuer: newIssuer(t), asked: make(chan *request, 10), renewed: make(chan renewal, 10), managed: make(chan int, 10),
	}
	mux := http.NewServeMux()
	pidOf := func(r *http.Request) int {
		pid, _ := strconv.Atoi(r.FormValue("pid")) // a worker sends a number

		return pid
	}

	mux.HandleFunc("/issue", func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was killed
		}

		csr, err := x509.ParseCertificateRequest(raw)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)

			return
		}

		asked := &request{pidOf(r), make(chan bool)}
		a.asked <- asked

		select {
		case <-r.Context().Done(): // it was killed
			return
		case issue := <-asked.issue:
			if !issue {
				http.Error(w, "refused", http.StatusServiceUnavailable)

				return
			}
		}

		issued, err := a.issuer.Issue(r.Context(), csr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)

			return
		}

		_, _ = w.Write(issued.Certificate) // or it was killed
	})
	mux.HandleFunc("/renewed", func(_ http.ResponseWriter, r *http.Request) {
		a.renewed <- renewal{pidOf(r), r.FormValue("error"), r.FormValue("lost") == "true"}
	})
	mux.HandleFunc("/managed", func(_ http.ResponseWriter, r *http.Request) { a.managed <- pidOf(r) })

	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)

	return a
}

// startWorkers starts three processes that want the same certificate, by process id.
func startWorkers(t *testing.T, a *authority, url string, ttl time.Duration) map[int]*exec.Cmd {
	t.Helper()

	workers, folder := map[int]*exec.Cmd{}, t.TempDir()

	for range 3 {
		worker := exec.Command(os.Args[0])
		worker.Env = append(os.Environ(), envAuthority+"="+a.URL, envURL+"="+url, envFolder+"="+folder, envTTL+"="+ttl.String())
		worker.Stderr = os.Stderr

		input, err := worker.StdinPipe()
		must(t, err)
		must(t, worker.Start())
		t.Cleanup(func() {
			_ = input.Close()
			_ = worker.Wait() // one was killed
		})

		workers[worker.Process.Pid] = worker
	}

	return workers
}

// receive fails unless something comes within two minutes.
func receive[T any](t *testing.T, what string, from <-chan T) (got T) {
	t.Helper()

	select {
	case got = <-from:
	case <-time.After(2 * time.Minute):
		t.Fatal("in vain for two minutes: ", what)
	}

	return got
}

// once fails if a certificate was issued more than once, or is asked for still.
func (a *authority) once(t *testing.T) {
	t.Helper()

	if n := a.issuer.issued.Load(); n != 1 || len(a.asked) > 0 {
		t.Errorf("%d certificates were issued, and %d more are asked for; want 1 and none", n, len(a.asked))
	}
}

// crashTTL is how long the others wait for the lock of a process that was killed or stopped.
const crashTTL = 10 * time.Second

// TestHolderKilled: the process that obtains a certificate is killed. Another obtains it, and the third loads it.
func TestHolderKilled(t *testing.T) {
	t.Parallel()

	a := newAuthority(t)
	workers := startWorkers(t, a, databases.NewDatabase(t).String(), crashTTL)

	first := receive(t, "a process asks", a.asked)
	must(t, workers[first.pid].Process.Kill())

	next := receive(t, "another asks", a.asked)
	if next.pid == first.pid {
		t.Fatal("a killed process asks")
	}

	next.issue <- true

	for range 2 {
		receive(t, "the others have the certificate", a.managed)
	}

	a.once(t)
}

// TestHolderStopped: the process that obtains a certificate is stopped for longer than its lease. Another obtains it. When
// the first goes on, it hears of the loss, and loads the certificate.
func TestHolderStopped(t *testing.T) {
	t.Parallel()

	a := newAuthority(t)
	workers := startWorkers(t, a, databases.NewDatabase(t).String(), crashTTL)

	first := receive(t, "a process asks", a.asked)
	must(t, workers[first.pid].Process.Signal(syscall.SIGSTOP))

	defer func() { _ = workers[first.pid].Process.Signal(syscall.SIGCONT) }() // or it couldn't end

	next := receive(t, "another asks", a.asked)
	next.issue <- true

	if got := receive(t, "it renews its lease", a.renewed); got.pid != next.pid || got.err != "" {
		t.Errorf("RenewLockLease of the next holder, %d: %+v", next.pid, got)
	}

	for range 2 {
		receive(t, "the others have the certificate", a.managed)
	}

	must(t, workers[first.pid].Process.Signal(syscall.SIGCONT))
	first.issue <- false

	if got := receive(t, "the first renews its lease", a.renewed); got.pid != first.pid || !got.lost {
		t.Errorf("RenewLockLease of the process that was stopped, %d: %+v", first.pid, got)
	}

	if pid := receive(t, "it has the certificate, too", a.managed); pid != first.pid {
		t.Errorf("%d has the certificate, not %d", pid, first.pid)
	}

	a.once(t)
}

// TestDatabaseRestarted: the database is restarted while a process obtains a certificate. It keeps its lock, and the
// others go on waiting.
func TestDatabaseRestarted(t *testing.T) {
	t.Parallel()

	for _, mode := range []string{"restarted", "killed and started"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()

			server := lockertest.StartServer(t)
			db := databases.Open(t, server.URL())
			must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))

			a := newAuthority(t)
			startWorkers(t, a, server.URL(), 2*time.Minute) // longer than a restart takes

			first := receive(t, "a process asks", a.asked)

			if mode == "restarted" {
				must(t, server.Restart(t.Context(), pgtesting.FastShutdown))
			} else {
				must(t, server.Kill())
				must(t, server.Start(t.Context()))
			}

			first.issue <- true

			if got := receive(t, "it renews its lease", a.renewed); got.pid != first.pid || got.err != "" {
				t.Errorf("RenewLockLease of %d: %+v", first.pid, got)
			}

			for range 3 {
				receive(t, "all have the certificate", a.managed)
			}

			a.once(t)
		})
	}
}

// TestDatabaseAway: the database is away for longer than the lease. The loss surfaces, and the lock is taken again later.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()

	server := lockertest.StartServer(t)
	db := databases.Open(t, server.URL())
	must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))

	locker, err := pglocker.New(db, &pglocker.Config{})
	must(t, err)
	t.Cleanup(func() { must(t, locker.Close(context.Background())) })

	locks, err := pglockercertmagic.NewLocker(locker, prefix, 5*time.Second)
	must(t, err)
	must(t, locks.Lock(t.Context(), "a"))
	must(t, server.Shutdown(t.Context(), pgtesting.FastShutdown))

	renew := func(until func(error) bool) {
		t.Helper()

		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
			err := locks.RenewLockLease(t.Context(), "a", minute)
			if until(err) {
				return
			}

			if time.Now().After(deadline) {
				t.Fatal("for two minutes RenewLockLease returns", err)
			}
		}
	}

	renew(func(err error) bool {
		if err != nil && !errors.Is(err, pglocker.ErrLockLost) {
			t.Fatal("before the loss is told:", err)
		}

		return err != nil
	})

	must(t, server.Start(t.Context()))
	renew(func(err error) bool { return err == nil })
	must(t, locks.Unlock(t.Context(), "a"))
}
