package ui

import (
	"context"
	"time"
)

// guarded returns a context that ends when the database stops answering: it asks the database again and again, and
// gives it askFor each time. A read of a large table takes long, and must not be taken for one that hangs. The caller
// calls stop, which waits for the last question.
func guarded(ctx context.Context, ask func(context.Context) error) (guarded context.Context, stop func()) {
	guarded, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})

	go func() {
		defer close(ended)

		next := time.NewTicker(askFor)
		defer next.Stop()

		for {
			select {
			case <-next.C:
			case <-guarded.Done():
				return
			}

			once, done := context.WithTimeout(guarded, askFor)
			err := ask(once)

			done()

			if err != nil {
				cancel(err)

				return
			}
		}
	}()

	return guarded, func() {
		cancel(nil)
		<-ended
	}
}
