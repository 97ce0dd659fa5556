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

	holding map[*pglocker.HoldStart]struct{}
	held    []pglocker.HoldEnd
	renewed []pglocker.LockRenewed
	batches map[pglocker.Operation]int

	// inLine yields the lock's id when a waiter has taken its place in the line.
	inLine chan string
}

type started struct{ pglocker.OperationStart }

type (
	startedKey struct{}
	holdKey    struct{}
)

// NewWatcher returns a Watcher for up to 100,000 waits.
func NewWatcher() *Watcher {
	return &Watcher{
		open: make(map[*started]struct{}), holding: make(map[*pglocker.HoldStart]struct{}),
		batches: make(map[pglocker.Operation]int), inLine: make(chan string, 100_000),
	}
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

func (w *Watcher) HoldStart(ctx context.Context, start pglocker.HoldStart) context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.holding[&start] = struct{}{}

	return context.WithValue(ctx, holdKey{}, &start)
}

func (w *Watcher) HoldEnd(ctx context.Context, end pglocker.HoldEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()

	start, ok := ctx.Value(holdKey{}).(*pglocker.HoldStart)

	switch _, holding := w.holding[start]; {
	case !ok:
		w.wrong = append(w.wrong, "the end of a hold with another context than its start returned")
	case !holding:
		w.wrong = append(w.wrong, "a hold ended twice")
	case *start != end.HoldStart:
		w.wrong = append(w.wrong, "a hold ended as something else than it started")
	}

	delete(w.holding, start)
	w.held = append(w.held, end)
}

func (w *Watcher) LockRenewed(renewed pglocker.LockRenewed) {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.renewed = append(w.renewed, renewed)
}

func (w *Watcher) BatchSent(batch pglocker.BatchSent) {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.batches[batch.Operation] += batch.Locks
}

// Holds are the holds of that name that have ended.
func (w *Watcher) Holds(name string) (held []pglocker.HoldEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, end := range w.held {
		if end.Name == name {
			held = append(held, end)
		}
	}

	return held
}

// Renewed are the renewals of a lock that were acknowledged.
func (w *Watcher) Renewed(lockID string) (renewed []pglocker.LockRenewed) {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, r := range w.renewed {
		if r.LockID == lockID {
			renewed = append(renewed, r)
		}
	}

	return renewed
}

// Sent is how many locks the statements of an operation were for.
func (w *Watcher) Sent(op pglocker.Operation) int {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.batches[op]
}

// HoldOf reports the hold under whose context ctx was made.
func HoldOf(ctx context.Context) (start pglocker.HoldStart, ok bool) {
	s, ok := ctx.Value(holdKey{}).(*pglocker.HoldStart)
	if ok {
		start = *s
	}

	return start, ok
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

// Check fails the test unless every operation and every hold that started has ended, once.
func (w *Watcher) Check(t *testing.T) {
	t.Helper()

	Await(t, "every operation and every hold ends", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()

		return len(w.open)+len(w.holding) == 0
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

	Await(t, "an acknowledged renewal is told", func() bool { return len(w.Renewed(id)) > 0 })

	if len(w.Ended(pglocker.OperationRenew, "")) == 0 {
		t.Error("a renewal was acknowledged before its statement had ended")
	}

	granted := lockAsync(ctx, locker, id)
	Receive(t, "a waiter in line", w.InLine())
	unlock(t, held)

	lock := granted.get(t)
	e.take(t, id)
	unlockLost(t, lock)

	for op, want := range map[pglocker.Operation][]error{
		pglocker.OperationAcquire: {nil, pglocker.ErrAlreadyLocked, pglocker.ErrAlreadyLocked},
		pglocker.OperationWait:    {nil},
		pglocker.OperationRelease: {nil, pglocker.ErrLockLost},
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

	for op, want := range map[pglocker.Operation]pglocker.OperationEnd{
		pglocker.OperationAcquire: {Token: held.Token()},
		pglocker.OperationWait:    {Token: lock.Token(), HandedOver: true},
		pglocker.OperationRelease: {Token: held.Token()},
	} {
		if end := w.Ended(op, id)[0]; end.Token != want.Token || end.HandedOver != want.HandedOver || end.Kind != pglocker.KindLock || end.Name != id {
			t.Errorf("%s: %+v, want token %d, handed over %t", op, end, want.Token, want.HandedOver)
		}

		if op != pglocker.OperationWait && w.Sent(op) == 0 {
			t.Errorf("no batch of %s was told", op)
		}
	}

	// The second hold was lost, but its holder believed to the end.
	holds := w.Holds(id)
	if len(holds) != 2 || holds[0].Token != held.Token() || holds[0].HandedOver || holds[1].Token != lock.Token() || !holds[1].HandedOver ||
		holds[0].Err != nil || holds[1].Err != nil || holds[0].HeldFor <= 0 || holds[0].TTL != minute || holds[0].Locks != 1 {
		t.Errorf("holds: %+v, want two, the second handed over", holds)
	}

	renewed := w.Renewed(id)
	if len(renewed) == 0 || renewed[0].Token != held.Token() || renewed[0].TTL != minute || renewed[0].Left <= minute/2 || renewed[0].Left >= minute {
		t.Errorf("renewed: %+v, want most of a minute left", renewed)
	}

	if start, ok := HoldOf(lock.Context()); !ok || start.Token != lock.Token() {
		t.Errorf("the lock's context is of the hold %+v, %t, want token %d", start, ok, lock.Token())
	}

	// A loss that no method was called about.
	id = newID()
	lock = tryLock(t, locker, id, pglocker.WithRelockInterval(10*time.Millisecond))
	e.take(t, id)
	Receive(t, "the lock is lost", lock.Context().Done())
	Await(t, "the loss is told", func() bool { return len(w.Lost(id)) > 0 })
	unlockLost(t, lock)

	lost := w.Lost(id)
	if len(lost) != 1 || lost[0].Token != lock.Token() || !lost[0].Gone || lost[0].HeldFor <= 0 || !errors.Is(lost[0].Err, pglocker.ErrLockLost) {
		t.Errorf("told of %+v, want one loss of token %d that the database saw", lost, lock.Token())
	}

	if holds := w.Holds(id); len(holds) != 1 || !errors.Is(holds[0].Err, pglocker.ErrLockLost) {
		t.Errorf("holds: %+v, want one that ended by the loss", holds)
	}

	w.Check(t)
}
