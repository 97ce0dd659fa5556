package pglocker

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/listen"
	"github.com/ismurov/pglocker/internal/store"
)

// TestNothingObserved: without an observer and an error nothing is allocated for one.
func TestNothingObserved(t *testing.T) {
	ctx := t.Context()

	var (
		w  = newWatch(nil)
		lk = &Lock{lease: &keepalive.Lease{LockID: "pglocker:semaphore:a:3", Generation: 7}, ttl: time.Minute}
	)

	lk.group = &group{locker: &Locker{watch: w}, locks: []*Lock{lk}}

	allocs := testing.AllocsPerRun(100, func() {
		_, end := w.start(ctx, OperationRelease, "a", 1, 7)
		end(failed("release", "a", nil))

		_, ended := w.request(ctx, true, "a", 1)
		ended(store.Result{}, nil)

		lk.group.startHold(true)
		w.renewed(lk, time.Second)
		w.listener(listen.Resting, listen.Polling)
		lk.group.endHold(nil)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}

	if w.onBatch() != nil {
		t.Error("a store tells of batches")
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()

	for id, want := range map[string]Subject{
		"":                            {},
		"a:b":                         {Kind: KindLock, Name: "a:b"},
		"pglocker:election:a:b":       {Kind: KindElection, Name: "a:b"},
		"pglocker:semaphore:a:b:gate": {Kind: KindSemaphore, Name: "a:b"},
		"pglocker:semaphore:a:b:12":   {Kind: KindSemaphore, Name: "a:b"},
		"pglocker:rwlock:a:w":         {Kind: KindRWLock, Name: "a"},
		"pglocker:rwlock:a":           {Kind: KindRWLock},
		"pglocker:resign:a":           {Kind: KindInternal, Name: "resign:a"},
	} {
		want.LockID, want.Locks = id, 2
		if got := subjectOf(id, 2); got != want {
			t.Errorf("%q is %+v, want %+v", id, got, want)
		}
	}
}
