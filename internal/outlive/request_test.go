package outlive_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ismurov/pglocker/internal/outlive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAnswerOrLate: an answer reaches the caller, or is late, and never both.
func TestAnswerOrLate(t *testing.T) {
	t.Parallel()

	for range 1000 {
		var late atomic.Bool

		ended := make(chan struct{})
		request := outlive.Send(t.Context(), 0, func() { close(ended) },
			func(context.Context) int { return 7 }, func(answer int) { late.Store(answer == 7) })

		select {
		case answer := <-request.Answer():
			if answer != 7 {
				t.Fatalf("answer %d", answer)
			}

			<-ended

			if late.Load() {
				t.Fatal("the answer was received and late")
			}
		default:
			request.Leave()
			<-ended

			if !late.Load() {
				t.Fatal("the answer was lost")
			}
		}
	}
}

// TestGrace: a request whose caller has left goes on for a second, also if the caller's context has ended, and keeps
// its values.
func TestGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}

		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		began := time.Now()
		took := make(chan time.Duration, 1)

		request := outlive.Send(ctx, time.Minute, func() {}, func(ctx context.Context) error {
			if ctx.Value(key{}) != "value" {
				t.Error("the value is lost")
			}

			<-ctx.Done()

			return ctx.Err()
		}, func(err error) {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}

			took <- time.Since(began)
		})

		cancel()
		time.Sleep(5 * time.Second)

		if _, ok := request.Within(2 * time.Second); ok {
			t.Error("an answer, while the request hangs")
		}

		if got, want := <-took, 7*time.Second+outlive.Grace; got != want {
			t.Errorf("the request ended after %s, want %s", got, want)
		}
	})
}

// TestLimit: a request ends at its limit, and its caller receives what it brings.
func TestLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		request := outlive.Send(t.Context(), time.Minute, func() {}, func(ctx context.Context) error {
			<-ctx.Done()

			return ctx.Err()
		}, func(error) { t.Error("late") })

		began := time.Now()

		if err := <-request.Answer(); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(began))
		}

		if request.Sent() {
			t.Error("nothing was sent")
		}
	})
}
