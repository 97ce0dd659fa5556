package contract

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// Watcher is an observer that keeps all events.
type Watcher struct {
	// mu guards the rest.
	mu    sync.Mutex
	open  map[*started]struct{}
	ended []pglocker.OperationEnd
	lost  []pglocker.LockLost
	wrong []string

	// inLine yields the lock's id when a waiter has taken its place in the line.
	inLine chan string
}

type started struct{ pglocker.OperationStart }

type startedKey struct{}

// NewWatcher returns a Watcher for up to 100,000 waits.
func NewWatcher() *Watcher {
	return &Watcher{open: make(map[*started]struct{}), inLine: make(chan string, 100_000)}
}

// InLine yields the lock's id when a waiter has taken its place in the line.
func (w *Watcher) InLine() <-chan string { return w.inLine }

func (w *Watcher) OperationStart(ctx context.Context, start pglocker.OperationStart) context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()

	s := &started{start}
	w.open[s] = struct{}{}
	ctx = context.WithValue(ctx, startedKey{}, s)

	if start.Operation == pglocker.OperationWait {
		// A waiter looks at its context when it has taken its place, not before.
		ctx = &placed{Context: ctx, taken: func() { w.inLine <- start.LockID }}
	}

	return ctx
}

func (w *Watcher) OperationEnd(ctx context.Context, end pglocker.OperationEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()

	s, ok := ctx.Value(startedKey{}).(*started)

	switch _, open := w.open[s]; {
	case !ok:
		w.wrong = append(w.wrong, "an end with another context than the start returned")
	case !open:
		w.wrong = append(w.wrong, string(end.Operation)+" ended twice")
	case s.OperationStart != end.OperationStart:
		w.wrong = append(w.wrong, string(end.Operation)+" ended as something else than it started")
	case end.Duration < 0:
		w.wrong = append(w.wrong, string(end.Operation)+" took a negative time")
	}

	delete(w.open, s)
	w.ended = append(w.ended, end)
}

func (w *Watcher) LockLost(lost pglocker.LockLost) {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.lost = append(w.lost, lost)
}

// UnderWay reports whether an operation of that kind has started and not ended.
func (w *Watcher) UnderWay(op pglocker.Operation) bool {
	w.mu.Lock()
	defer w.mu.Unlock()

	for s := range w.open {
		if s.Operation == op {
			return true
		}
	}

	return false
}

func (w *Watcher) Ended(op pglocker.Operation, lockID string) (ended []pglocker.OperationEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, end := range w.ended {
		if end.Operation == op && end.LockID == lockID {
			ended = append(ended, end)
		}
	}

	return ended
}

func (w *Watcher) Lost(lockID string) (lost []pglocker.LockLost) {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, l := range w.lost {
		if l.LockID == lockID {
			lost = append(lost, l)
		}
	}

	return lost
}

// Check fails the test unless every operation that started has ended, once.
func (w *Watcher) Check(t *testing.T) {
	t.Helper()

	Await(t, "every operation ends", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()

		return len(w.open) == 0
	})

	w.mu.Lock()
	defer w.mu.Unlock()

	for _, what := range w.wrong {
		t.Error(what)
	}
}

// placed is a context that tells when its Done is first called.
type placed struct {
	context.Context

	once  sync.Once
	taken func()
}

func (p *placed) Done() <-chan struct{} {
	p.once.Do(p.taken)

	return p.Context.Done()
}

// testObserver: every operation ends with its own error, and a loss is told once.
func testObserver(t *testing.T, e *env) {
	ctx := withinContext(t)
	w := NewWatcher()
	locker := e.watchedLocker(t, w)
	id := newID()

	held := tryLock(t, locker, id, pglocker.WithRelockInterval(10*time.Millisecond))

	if _, err := locker.TryLock(ctx, id, minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("TryLock of a held lock: %v, want ErrAlreadyLocked", err)
	}

	Await(t, "a renewal is told", func() bool { return len(w.Ended(pglocker.OperationRenew, "")) > 0 })

	granted := lockAsync(ctx, locker, id)
	Receive(t, "a waiter in line", w.InLine())
	unlock(t, held)

	lock := granted.get(t)
	e.take(t, id)
	unlockLost(t, lock)

	for op, want := range map[pglocker.Operation][]error{
		pglocker.OperationAcquire: {nil, pglocker.ErrAlreadyLocked, pglocker.ErrAlreadyLocked},
		pglocker.OperationWait:    {nil},
		pglocker.OperationRelease: {nil, pglocker.ErrWrongGeneration},
	} {
		ended := w.Ended(op, id)
		if len(ended) != len(want) {
			t.Errorf("%s ended %d times, want %d: %+v", op, len(ended), len(want), ended)

			continue
		}

		for i, end := range ended {
			if !errors.Is(end.Err, want[i]) || end.Locks != 1 {
				t.Errorf("%s number %d: %+v, want the error %v and one lock", op, i, end, want[i])
			}
		}
	}

	// A loss that no method was called about.
	id = newID()
	lock = tryLock(t, locker, id, pglocker.WithRelockInterval(10*time.Millisecond))
	e.take(t, id)
	Receive(t, "the lock is lost", lock.Context().Done())
	Await(t, "the loss is told", func() bool { return len(w.Lost(id)) > 0 })
	unlockLost(t, lock)

	lost := w.Lost(id)
	if len(lost) != 1 || lost[0].Token != lock.Token() || !lost[0].Gone || !errors.Is(lost[0].Err, pglocker.ErrLockLost) {
		t.Errorf("told of %+v, want one loss of token %d that the database saw", lost, lock.Token())
	}

	w.Check(t)
}
