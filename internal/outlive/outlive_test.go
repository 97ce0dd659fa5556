package outlive_test

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/ismurov/pglocker/internal/outlive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOneGetsIt: the caller gets the result, or late does, and never both.
func TestOneGetsIt(t *testing.T) {
	t.Parallel()

	for _, leaves := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var (
				running sync.WaitGroup
				late    []int
			)

			answer := make(chan int)
			r := outlive.Start(running.Go, func() int { return <-answer }, func(n int) { late = append(late, n) })

			if leaves {
				r.Leave()
			}

			answer <- 7

			if !leaves {
				if n := <-r.Result(); n != 7 {
					t.Errorf("the result is %d", n)
				}
			}

			running.Wait()

			if want := leaves; len(late) == 1 != want {
				t.Errorf("with a caller that leaves %t, late was given %v", leaves, late)
			}
		})
	}
}

// TestDropped: without late, the result of a request whose caller has left is dropped, and its
// goroutine ends.
func TestDropped(t *testing.T) {
	t.Parallel()

	var running sync.WaitGroup

	outlive.Start(running.Go, func() int { return 7 }, nil).Leave()
	running.Wait()
}

// TestGoexit: a request that ends its goroutine has the zero value for a result.
func TestGoexit(t *testing.T) {
	t.Parallel()

	var running sync.WaitGroup

	r := outlive.Start(running.Go, func() *int {
		runtime.Goexit()

		return new(int)
	}, nil)

	if got := <-r.Result(); got != nil {
		t.Errorf("the result is %v, want nil", got)
	}

	running.Wait()
}

// TestPanic: a request that panics delivers nothing, and its panic goes on.
func TestPanic(t *testing.T) {
	t.Parallel()

	panicked := make(chan any)
	r := outlive.Start(func(run func()) {
		go func() {
			defer func() { panicked <- recover() }()

			run()
		}()
	}, func() int { panic("ask") }, func(int) { t.Error("late was called") })

	select {
	case got := <-r.Result():
		t.Errorf("the result is %v", got)
	case cause := <-panicked:
		if cause != "ask" {
			t.Errorf("the panic is %v", cause)
		}
	}
}
