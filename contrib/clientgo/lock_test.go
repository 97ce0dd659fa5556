package pglockerclientgo_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/ismurov/pglocker"
	pglockerclientgo "github.com/ismurov/pglocker/contrib/clientgo"
	"github.com/ismurov/pglocker/lockertest"
)

// record is what an elector writes to lead.
func record(identity string) resourcelock.LeaderElectionRecord {
	return resourcelock.LeaderElectionRecord{HolderIdentity: identity, LeaseDurationSeconds: 60}
}

// nobody is what an elector writes to release.
var nobody = resourcelock.LeaderElectionRecord{LeaseDurationSeconds: 1}

// get returns what Get does.
func get(t *testing.T, lock *pglockerclientgo.Lock) (resourcelock.LeaderElectionRecord, []byte) {
	t.Helper()

	r, raw, err := lock.Get(t.Context())
	must(t, err)

	return *r, raw
}

// wantHolder fails the test if the lock shows another holder.
func wantHolder(t *testing.T, lock *pglockerclientgo.Lock, want string) {
	t.Helper()

	if r, _ := get(t, lock); r.HolderIdentity != want {
		t.Errorf("%s sees the holder %q instead of %q", lock.Identity(), r.HolderIdentity, want)
	}
}

// endLease lets the lease end.
func endLease(t *testing.T, url string) {
	t.Helper()

	_, err := databases.Open(t, url).ExecContext(t.Context(),
		`UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp() - interval '1 second'`)
	must(t, err)
}

func TestLock(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	a, b := newLock(t, url, "a"), newLock(t, url, "b")
	ctx := t.Context()

	if _, _, err := a.Get(ctx); !apierrors.IsNotFound(err) {
		t.Errorf("without a row: %v", err)
	}

	must(t, a.Create(ctx, record("a")))

	if err := b.Create(ctx, record("b")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("another creates it too: %v", err)
	}

	seen, before := get(t, b)
	if seen.HolderIdentity != "a" || seen.LeaseDurationSeconds != 60 || time.Since(seen.RenewTime.Time).Abs() > time.Minute {
		t.Errorf("another sees %+v", seen)
	}

	if _, again := get(t, b); !bytes.Equal(before, again) {
		t.Errorf("without a change the record was\n%s, and is\n%s", before, again)
	}

	token := a.Token()
	if token == 0 || b.Token() != 0 {
		t.Errorf("the holder has the token %d, the other %d", token, b.Token())
	}

	must(t, a.Update(ctx, record("a")))

	if _, after := get(t, b); bytes.Equal(before, after) {
		t.Errorf("a renewal left the record as it was: %s", after)
	}

	if a.Token() != token {
		t.Errorf("the token was %d, and is %d", token, a.Token())
	}

	// Another has seen the record. It doesn't take an unexpired lease over.
	if err := b.Update(ctx, record("b")); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "held by a#") {
		t.Errorf("another's update: %v", err)
	}

	must(t, a.Update(ctx, record("a")))
	wantHolder(t, a, "a")

	must(t, b.Update(ctx, nobody)) // it has nothing to release
	wantHolder(t, b, "a")

	must(t, a.Update(ctx, nobody))
	wantHolder(t, b, "")
	must(t, b.Update(ctx, record("b")))
	wantHolder(t, a, "b")

	if a.Token() != 0 || b.Token() <= token {
		t.Errorf("after %d, the former holder has the token %d, the next %d", token, a.Token(), b.Token())
	}

	if err := a.Update(ctx, record("b")); !apierrors.IsBadRequest(err) {
		t.Errorf("an update for another: %v", err)
	}
}

func TestALeaseThatHasEndedIsTaken(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	a, b := newLock(t, url, "a"), newLock(t, url, "b")
	ctx := t.Context()

	must(t, a.Create(ctx, record("a")))
	_, before := get(t, b)

	endLease(t, url)
	wantHolder(t, b, "")

	if _, after := get(t, b); bytes.Equal(before, after) {
		t.Errorf("the end of the lease left the record as it was: %s", after)
	}

	// Nobody has taken it, so its holder may go on.
	token := a.Token()
	must(t, a.Update(ctx, record("a")))

	if a.Token() != token {
		t.Errorf("the token was %d, and is %d", token, a.Token())
	}

	endLease(t, url)
	must(t, b.Update(ctx, record("b")))

	if err := a.Update(ctx, record("a")); !apierrors.IsConflict(err) {
		t.Errorf("the former holder's update: %v", err)
	}

	wantHolder(t, a, "b")

	if err := a.Update(ctx, record("a")); !apierrors.IsConflict(err) {
		t.Errorf("the former holder's update after a look: %v", err)
	}

	must(t, a.Update(ctx, nobody))
	must(t, b.Update(ctx, record("b")))
}

// TestAReleaseAfterTheLease: client-go releases without a look if its own belief says so.
func TestAReleaseAfterTheLease(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	a, b := newLock(t, url, "a"), newLock(t, url, "b")
	ctx := t.Context()

	must(t, a.Create(ctx, record("a")))
	endLease(t, url)
	must(t, b.Update(ctx, record("b")))

	must(t, a.Update(ctx, nobody))
	must(t, b.Update(ctx, record("b")))

	_, err := databases.Open(t, url).ExecContext(ctx, `DELETE FROM pglocker.lock_statuses`)
	must(t, err)
	must(t, b.Update(ctx, nobody))
}

// TestTheSameIdentity: the candidates of one identity are two, also where a process begins anew.
func TestTheSameIdentity(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	first, second := newLock(t, url, "a"), newLock(t, url, "a")
	ctx := t.Context()

	must(t, first.Create(ctx, record("a")))

	if r, _ := get(t, second); !strings.HasPrefix(r.HolderIdentity, "a#") {
		t.Errorf("the other sees the holder %q", r.HolderIdentity)
	}

	if err := second.Update(ctx, record("a")); !apierrors.IsConflict(err) {
		t.Errorf("the other's update: %v", err)
	}

	must(t, second.Update(ctx, nobody))
	must(t, first.Update(ctx, record("a")))
}

// TestALostReply: the database has carried out a renewal, and this process doesn't know.
func TestALostReply(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)
	lock, other := newLock(t, url, "a"), newLock(t, url, "b")
	ctx := t.Context()

	renew := func() {
		_, err := db.ExecContext(ctx, `UPDATE pglocker.lock_statuses
			SET generation = generation + 1, owner = owner || '-2', acquired_at = clock_timestamp()`)
		must(t, err)
	}

	must(t, lock.Create(ctx, record("a")))

	token := lock.Token()

	renew()

	if err := lock.Update(ctx, record("a")); !apierrors.IsConflict(err) {
		t.Errorf("by the old state: %v", err)
	}

	wantHolder(t, lock, "a")
	must(t, lock.Update(ctx, record("a")))

	if lock.Token() != token {
		t.Errorf("the token was %d, and is %d", token, lock.Token())
	}

	renew()
	must(t, lock.Update(ctx, nobody))
	wantHolder(t, other, "")
}

// TestAnOldState: a pooler sends reads to a standby that lags behind.
func TestAnOldState(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)
	lock := newLock(t, url, "a")
	ctx := t.Context()

	// show lets reads see another state.
	show := func(generation int64, owner string) {
		_, err := db.ExecContext(ctx, `UPDATE pglocker.lock_statuses SET generation = $1, owner = $2`, generation, owner)
		must(t, err)
	}

	run := lock.UntilLost(ctx)

	must(t, lock.Create(ctx, record("a")))
	must(t, lock.Update(ctx, record("a")))

	token := lock.Token()
	_, before := get(t, lock)

	var (
		generation int64
		owner      string
	)

	must(t, db.QueryRowContext(ctx, `SELECT generation, owner FROM pglocker.lock_statuses`).Scan(&generation, &owner))

	for _, older := range []string{"b#1.1", owner, ""} {
		show(generation-1, older)
		wantHolder(t, lock, "a")

		if _, again := get(t, lock); !bytes.Equal(before, again) {
			t.Errorf("an old state of %q is shown: %s", older, again)
		}
	}

	show(generation, owner)
	must(t, lock.Update(ctx, record("a")))

	if run.Err() != nil || lock.Token() != token {
		t.Errorf("the term has ended, or has the token %d instead of %d: %v", lock.Token(), token, context.Cause(run))
	}
}

// TestASilentServer: a request that gets no answer ends in time for another one.
func TestASilentServer(t *testing.T) {
	t.Parallel()

	proxy, through := newProxy(t, databases.NewDatabase(t).String())
	lock := newLock(t, through, "a")

	must(t, lock.Create(t.Context(), record("a")))
	proxy.holdBack()

	failed := make(chan error)

	go func() {
		_, _, err := lock.Get(t.Context())
		failed <- err
	}()

	if err := receive(t, "the look ends", failed); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a look: %v", err)
	}

	go func() { failed <- lock.Update(t.Context(), record("a")) }()

	if err := receive(t, "the renewal ends", failed); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a renewal: %v", err)
	}

	proxy.letGo()
	wantHolder(t, lock, "a")
	must(t, lock.Update(t.Context(), record("a")))
}

func TestUntilLost(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	locker, err := pglocker.New(databases.Open(t, url), &pglocker.Config{})
	must(t, err)

	proxy, through := newProxy(t, url)
	a := newLock(t, through, "a")

	// Not before it leads.
	run := a.UntilLost(t.Context())
	_, _, err = a.Get(t.Context())
	if !apierrors.IsNotFound(err) || run.Err() != nil {
		t.Errorf("before there is a lease: %v, %v", err, context.Cause(run))
	}

	must(t, a.Create(t.Context(), record("a")))
	wantHolder(t, a, "a")

	if run.Err() != nil {
		t.Errorf("while it leads: %v", context.Cause(run))
	}

	lockertest.Lose(t, locker, election)
	wantHolder(t, a, "")
	wantLost(t, run)

	// The next run isn't that of the lease before.
	run = a.UntilLost(t.Context())
	wantHolder(t, a, "")

	if run.Err() != nil {
		t.Errorf("the next run: %v", context.Cause(run))
	}

	// A release isn't a loss. It is sent when the leader has stopped.
	must(t, a.Update(t.Context(), record("a")))
	must(t, a.Update(t.Context(), record("a")))
	proxy.holdBack()

	released := make(chan error, 1)

	go func() { released <- a.Update(t.Context(), nobody) }()

	receive(t, "the run ends before the reply to its release", run.Done())

	if cause := context.Cause(run); !errors.Is(cause, context.Canceled) {
		t.Errorf("the context of a run that releases: %v", cause)
	}

	proxy.letGo()
	must(t, receive(t, "the release", released))
	wantHolder(t, a, "")

	// Without renewals it ends before the lease does.
	brief, err := pglockerclientgo.New(databases.Open(t, url), &pglocker.Config{Owner: "b", SafetyMargin: 19 * time.Second}, election)
	must(t, err)

	run = brief.UntilLost(t.Context())
	began := time.Now()

	must(t, brief.Update(t.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "b", LeaseDurationSeconds: 40}))
	receive(t, "the lease can't be trusted any more", run.Done())
	wantLost(t, run)

	if after := time.Since(began); after < 20*time.Second {
		t.Errorf("a lease of 40 s, with a margin of 19 s, was lost after %s", after)
	}

	status, err := locker.GetLockStatus(t.Context(), election)
	must(t, err)

	if status.Owner == "" {
		t.Error("the lease was lost by a release")
	}

	// The context of another run ends the one before, and ctx all.
	ctx, cancel := context.WithCancel(t.Context())
	first := a.UntilLost(ctx)
	second := a.UntilLost(ctx)
	receive(t, "the first run ends", first.Done())
	cancel()
	receive(t, "the second run ends", second.Done())
}

// TestShortenedLeases: a trigger on the table shortens leases, and the elector doesn't know.
func TestShortenedLeases(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()

	_, err := databases.Open(t, url).ExecContext(t.Context(), `
		CREATE FUNCTION shorten() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			NEW.expires_at := least(NEW.expires_at, clock_timestamp() + interval '5 seconds');
			RETURN NEW;
		END $$;
		CREATE TRIGGER shorten BEFORE INSERT OR UPDATE ON pglocker.lock_statuses FOR EACH ROW EXECUTE FUNCTION shorten()`)
	must(t, err)

	lock := newLock(t, url, "a")
	run := lock.UntilLost(t.Context())
	hours := record("a")
	hours.LeaseDurationSeconds = 10000

	must(t, lock.Create(t.Context(), hours))
	receive(t, "the lease can't be trusted any more", run.Done())
	wantLost(t, run)
}

// TestALateReply: the elector counts from when it is told.
func TestALateReply(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	slow := &slowly{}
	lock, err := pglockerclientgo.New(databases.Open(t, url), &pglocker.Config{Owner: "a", Observer: slow}, election)
	must(t, err)

	must(t, lock.Create(t.Context(), record("a")))

	slow.late.Store(true)

	if err := lock.Update(t.Context(), record("a")); !errors.Is(err, pglockerclientgo.ErrLate) {
		t.Errorf("a renewal of 60 s that took seven: %v", err)
	}

	slow.late.Store(false)
	must(t, lock.Update(t.Context(), record("a")))
}

// slowly is an observer that keeps a process from seeing an answer.
type slowly struct{ late atomic.Bool }

func (s *slowly) OperationStart(ctx context.Context, _ pglocker.OperationStart) context.Context {
	return ctx
}

func (s *slowly) OperationEnd(context.Context, pglocker.OperationEnd) {
	if s.late.Load() {
		time.Sleep(7 * time.Second)
	}
}

func (s *slowly) LockLost(pglocker.LockLost) {}

func wantLost(t *testing.T, run context.Context) {
	t.Helper()

	if cause := context.Cause(run); !errors.Is(cause, pglocker.ErrLockLost) {
		t.Errorf("the context of a run whose lease is lost: %v", cause)
	}
}

// TestThreeColumns: a table that doesn't say who holds a lock.
func TestThreeColumns(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)

	_, err := db.ExecContext(t.Context(), `ALTER TABLE pglocker.lock_statuses
		DROP COLUMN owner, DROP COLUMN acquired_at, DROP COLUMN contended_until`)
	must(t, err)

	a, b := newLock(t, url, "a"), newLock(t, url, "b")
	ctx := t.Context()

	must(t, a.Create(ctx, record("a")))
	must(t, a.Update(ctx, record("a")))
	wantHolder(t, a, "a")
	wantHolder(t, b, "(unknown)")

	if err := b.Update(ctx, record("b")); !apierrors.IsConflict(err) {
		t.Errorf("another's update: %v", err)
	}

	must(t, a.Update(ctx, nobody))
	wantHolder(t, b, "")
	must(t, b.Update(ctx, record("b")))
	wantHolder(t, a, "(unknown)")
}

func TestNew(t *testing.T) {
	t.Parallel()

	db := databases.Open(t, databases.NewDatabase(t).String())

	for _, c := range []struct {
		cfg  *pglocker.Config
		want error
	}{
		{&pglocker.Config{}, pglockerclientgo.ErrNoIdentity},
		{nil, pglocker.ErrConfigIsNil},
		{&pglocker.Config{Owner: "a", SafetyMargin: -1}, pglocker.ErrInvalidSafetyMargin},
	} {
		if _, err := pglockerclientgo.New(db, c.cfg, election); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}

	var logged strings.Builder

	lock, err := pglockerclientgo.New(db, &pglocker.Config{
		Owner: "a", Table: "t", Logger: slog.New(slog.NewTextHandler(&logged, nil)),
	}, election)
	must(t, err)

	if got := lock.Describe(); got != "pglocker.t/controller" {
		t.Error(got)
	}

	lock.RecordEvent("became leader")

	if !strings.Contains(logged.String(), "became leader") {
		t.Errorf("logged %q", logged.String())
	}
}
