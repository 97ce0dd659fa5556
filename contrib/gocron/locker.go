package pglockergocron

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/ismurov/pglocker"
)

var (
	// ErrNoPrefix: [NewLocker] was given no prefix.
	ErrNoPrefix = errors.New("pglockergocron: no prefix")
	// ErrNoName: the job has no name of its own (gocron.WithName), and its function is one that [Locker.Task] made. All
	// such functions have the same name, so their jobs would exclude each other.
	ErrNoName = errors.New("pglockergocron: the job needs gocron.WithName")
	// ErrNoLock: gocron took no lock of this [Locker] for the job whose function is [Locker.Task]'s.
	ErrNoLock = errors.New("pglockergocron: no lock of the job")
)

// releaseMax is how long gocron waits for a release, at most.
const releaseMax = 5 * time.Second

// Locker is a gocron.Locker. It is safe for concurrent use.
type Locker struct {
	locker  *pglocker.Locker
	prefix  string
	ttl     time.Duration
	minHold time.Duration

	// runs are the locks of the jobs that run, each a *lock, by the Done channel of the job's context. gocron gives
	// that context to [Locker.Lock] and to the job's function, and to no other job.
	runs sync.Map
}

var _ gocron.Locker = (*Locker)(nil)

// NewLocker returns a gocron.Locker.
//
// The lock's id is prefix and the job's name. prefix must not be empty ([ErrNoPrefix]), because jobs of different
// programs have the same names: by default a job has the name of its function. It must not begin with
// [pglocker.ReservedPrefix].
//
// ttl is the length of the lease, which is renewed while the job runs.
//
// minHold is how long a lock is held at least, see [pglocker.WithMinHold] and the documentation of this package. It must
// be above zero ([pglocker.ErrInvalidMinHold]).
//
// Another ttl or minHold that pglocker refuses, and a job name that makes an invalid lock id, are errors of each Lock:
// gocron tells them by its event AfterLockError, and skips the run.
func NewLocker(locker *pglocker.Locker, prefix string, ttl, minHold time.Duration) (*Locker, error) {
	switch {
	case prefix == "":
		return nil, ErrNoPrefix
	case strings.HasPrefix(prefix, pglocker.ReservedPrefix):
		return nil, fmt.Errorf("%w: prefix %q", pglocker.ErrReservedLockID, prefix)
	case minHold <= 0:
		return nil, fmt.Errorf("%w: %s", pglocker.ErrInvalidMinHold, minHold)
	}

	return &Locker{locker: locker, prefix: prefix, ttl: ttl, minHold: minHold}, nil
}

// Lock takes the lock of a job, or fails at once if another holds it. gocron calls it, and skips the run if it fails.
// If the database doesn't answer within a TTL, it fails, too: the tick would be over.
//
// Errors: [ErrNoName], and those of [pglocker.Locker.TryLock].
func (l *Locker) Lock(ctx context.Context, key string) (gocron.Lock, error) {
	if strings.HasPrefix(key, taskName) {
		return nil, ErrNoName
	}

	attempt, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()

	held, err := l.locker.TryLock(attempt, l.prefix+key, l.ttl, pglocker.WithMinHold(l.minHold))
	if err != nil {
		return nil, err
	}

	lk := &lock{Lock: held, locker: l, run: ctx.Done()}
	if lk.run != nil {
		l.runs.Store(lk.run, lk)
	}

	return lk, nil
}

// lock is a gocron.Lock.
type lock struct {
	*pglocker.Lock
	locker *Locker
	run    <-chan struct{}
}

// Unlock releases the lock, but for what is left of the minimum hold. On shutdown gocron's context has ended already.
// So that of the release is another, of five seconds at most. What isn't released then, the Locker releases in the
// background.
func (lk *lock) Unlock(ctx context.Context) error {
	if lk.run != nil {
		lk.locker.runs.CompareAndDelete(lk.run, lk)
	}

	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseMax)
	defer cancel()

	return lk.Lock.Unlock(release)
}

// Task returns a function for gocron.NewTask that runs fn, of a job whose lock this Locker takes. The job must have
// a name of its own (gocron.WithName), because all these functions have the same name. Give gocron.NewTask no context:
// gocron gives the function the job's.
//
// fn's context ends
//
//   - with a cause that matches [pglocker.ErrLockLost], when the lock can't be trusted any more;
//   - with the job's context, on shutdown and when the job is removed;
//   - with cause [pglocker.ErrClosed], when the pglocker.Locker is closed.
//
// fn should return soon after that. The lock is in the context: see [pglocker.FromContext], [pglocker.Guard].
//
// The function returns fn's error, joined with that of the loss if the lock was lost while fn ran: gocron tells it by
// its event AfterJobRunsWithError. It returns [ErrNoLock], and doesn't call fn, if gocron took no lock for the job: its
// scheduler has no such Locker, or the job opted out.
func (l *Locker) Task(fn func(ctx context.Context) error) func(ctx context.Context) error {
	return (&task{l, fn}).run
}

// task is a function under a lock. Its method has the same name wherever the compiler puts it, as a closure hasn't.
type task struct {
	locker *Locker
	fn     func(ctx context.Context) error
}

// taskName begins what gocron takes for the name of such a function.
const taskName = "github.com/ismurov/pglocker/contrib/gocron.(*task).run"

func (t *task) run(ctx context.Context) error {
	held, ok := t.locker.runs.Load(ctx.Done())
	if !ok {
		return ErrNoLock
	}

	return runUnder(held.(*lock).Context(), ctx, t.fn)
}
