package line

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/outlive"
	"github.com/ismurov/pglocker/internal/store"
)

// answer is what a request brought.
type answer struct {
	res store.Result
	err error
}

// granted reports whether the lock was granted.
func (a answer) granted() bool { return a.err == nil && a.res.Verdict == store.Granted }

// request is under way until its answer is received or its caller leaves. It outlives its caller.
type request struct {
	*outlive.Request[answer]
	ctx    context.Context
	cancel context.CancelFunc
	// sent reports whether something was sent.
	sent func() bool
}

// send makes a request, with ctx's values. What still waits for a connection when ctx ends is not sent. A
// grant that comes when the caller has left is returned.
func (l *Line) send(ctx context.Context, r Request, ask func(context.Context) answer) (*request, error) {
	end, err := l.Desk.Begin()
	if err != nil {
		return nil, err
	}

	q := new(request)
	q.ctx, q.cancel = context.WithCancel(store.Outlive(ctx))
	q.ctx, q.sent = store.Watch(q.ctx)

	q.Request = outlive.Start(func(run func()) {
		go func() {
			defer end()
			defer q.cancel()
			run()
		}()
	}, func() answer { return ask(q.ctx) }, func(a answer) {
		if a.granted() {
			l.giveBack(r, a.res)
		}
	})

	return q, nil
}

// within returns the answer if it comes within d. Otherwise the caller leaves.
func (q *request) within(d time.Duration) (a answer, ok bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case a = <-q.Result():
		return a, true
	case <-timer.C:
		q.leave()

		return a, false
	}
}

// leave says that nobody waits for the answer any more. The request goes on for [handover.Grace].
func (q *request) leave() {
	q.Leave()
	handover.EndSoon(q.ctx, q.cancel)
}
