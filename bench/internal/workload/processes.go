package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// queueStarters is how many processes start at once.
	queueStarters = 8
	// startWithin is how long the next one may take to start, and countWithin to tell what it has sent.
	startWithin = time.Minute
	countWithin = 20 * time.Second
)

// queue are the processes of W12.
type queue struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	group  sync.WaitGroup
	ends   []*os.File // each process's input
	ready  chan struct{}
	counts chan count
	grace  time.Duration // how long the processes may take to end

	mu      sync.Mutex
	moments []moment // mu guards it until end has returned
	ending  bool     // mu guards it
}

// startQueue starts processes, and returns when each has asked for the lock.
func startQueue(ctx context.Context, n int, j job) (*queue, error) {
	q := &queue{ready: make(chan struct{}, n), counts: make(chan count, n), grace: childGrace}
	q.ctx, q.cancel = context.WithCancelCause(ctx)

	for started := range n + queueStarters {
		var err error

		if started >= queueStarters {
			_, err = receive(q, q.ready, startWithin)
		}

		if err == nil && started < n {
			err = q.start(j)
		}

		if err != nil {
			return nil, cmp.Or(q.end(), err)
		}
	}

	return q, nil
}

func (q *queue) start(j job) error {
	in, end, err := os.Pipe()
	if err != nil {
		return err
	}

	q.ends = append(q.ends, end)

	q.group.Go(func() {
		err := runChild(q.ctx, j, in, q.hear)
		err = errors.Join(err, in.Close())

		q.mu.Lock()
		ending := q.ending
		q.mu.Unlock()

		if err == nil && !ending {
			err = errors.New("bench: a process ended that should wait for the lock")
		}

		if err != nil {
			q.cancel(err) // the first one is the cause
		}
	})

	return nil
}

func (q *queue) hear(l line) {
	switch {
	case l.Moment != nil:
		q.mu.Lock()
		q.moments = append(q.moments, *l.Moment)
		q.mu.Unlock()
	case l.Count != nil:
		q.counts <- *l.Count
	case l.Ready:
		q.ready <- struct{}{}
	}
}

// receive waits for what a process tells next.
func receive[T any](q *queue, from <-chan T, within time.Duration) (told T, err error) {
	timer := time.NewTimer(within)
	defer timer.Stop()

	select {
	case told = <-from:
	case <-q.ctx.Done():
		err = context.Cause(q.ctx)
	case <-timer.C:
		err = fmt.Errorf("bench: a process has told nothing for %s", within)
	}

	return told, err
}

// count asks all processes for their counts.
func (q *queue) count() (all []count, err error) {
	for _, end := range q.ends {
		if _, err := io.WriteString(end, "\n"); err != nil {
			return nil, err
		}
	}

	for range q.ends {
		one, err := receive(q, q.counts, countWithin)
		if err != nil {
			return nil, err
		}

		all = append(all, one)
	}

	return all, nil
}

// end ends all processes, and kills those that take too long. It returns what was wrong with the first.
func (q *queue) end() error {
	cause := context.Cause(q.ctx)

	q.mu.Lock()
	q.ending = true
	q.mu.Unlock()

	for _, end := range q.ends {
		_ = end.Close() // only the process can miss it, and is killed then
	}

	late := time.AfterFunc(q.grace, func() { q.cancel(errors.New("bench: a process didn't end, and was killed")) })
	q.group.Wait()
	late.Stop()

	cause = cmp.Or(cause, context.Cause(q.ctx))
	q.cancel(nil)

	return cause
}
