package handover

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// releasers bounds the goroutines that release what one statement has not. Their statements go together, up
// to as many in one.
const releasers = 512

// ReleaseAll is Release of tenures that end together, in the order of their ids. One statement releases those
// that no waiter here is handed. The errors are in the order of the tenures.
func (d *Desk) ReleaseAll(ctx context.Context, tenures []Tenure, until time.Time) []error {
	errs := d.releaseAll(ctx, tenures, until)

	if ctx.Err() == nil {
		return errs
	}

	var left []Tenure

	for i, err := range errs {
		if err != nil && !isGone(err) && store.Transient(err) {
			left = append(left, tenures[i])
		}
	}

	if len(left) > 0 {
		d.goOn(left[0].Awaited, func() { d.releaseAll(context.WithoutCancel(ctx), left, until) })
	}

	return errs
}

// releaseAll returns when ctx ends.
func (d *Desk) releaseAll(ctx context.Context, tenures []Tenure, until time.Time) []error {
	var (
		errs    = make([]error, len(tenures))
		left    = d.releaseTogether(ctx, tenures, until)
		next    = make(chan int, len(left))
		workers sync.WaitGroup
	)

	for _, i := range left {
		next <- i
	}

	close(next)

	for range min(releasers, len(left)) {
		workers.Go(func() {
			for i := range next {
				errs[i] = d.release(ctx, &tenures[i], until)
			}
		})
	}

	workers.Wait()

	return errs
}

// releaseTogether makes one attempt to release for all what no waiter here is handed. It returns the places
// of the tenures that are left.
func (d *Desk) releaseTogether(ctx context.Context, tenures []Tenure, until time.Time) (left []int) {
	var (
		places   = make([]int, 0, len(tenures))
		releases = make([]store.Releasing, 0, len(tenures))
		over     = make([]bool, 0, len(tenures))
	)

	for i := range tenures {
		t := &tenures[i]
		t.apart = t.Gate != "" // several slots go to a waiter for several, if there is one

		head, run := d.next(t)
		if head != nil {
			left = append(left, i)

			continue
		}

		places, over = append(places, i), append(over, d.endRun(t, run))
		releases = append(releases, store.Releasing{LockID: t.LockID, State: t.State, Hold: t.hold()})
	}

	if len(places) == 0 {
		return left
	}

	caller := d.Beside.Caller()
	defer caller.Done()

	var results []store.Released

	err := caller.Ask(ctx, until, time.Until(until)/4, func(ctx context.Context, st *store.Store) (err error) {
		results, err = st.ReleaseAll(ctx, releases)

		return err
	})

	for k, i := range places {
		t := &tenures[i]

		if k < len(results) && results[k].Done {
			d.tell(t, over[k], results[k].Notified)
		} else {
			t.doubt = t.doubt || errors.Is(err, store.ErrUnknownOutcome)
			left = append(left, i)
		}
	}

	slices.Sort(left)

	return left
}

// isGone reports whether a release found another tenure, or none.
func isGone(err error) bool {
	return errors.Is(err, ErrWrongGeneration) || errors.Is(err, ErrLockNotFound)
}

// ReturnAll is [Desk.Return] of a grant of several locks.
func (d *Desk) ReturnAll(res store.Result, ttl time.Duration) {
	if len(res.Grants) == 1 {
		d.Return(res.Grants[0].LockID, res, ttl)

		return
	}

	ctx, cancel := d.UntilClosed(context.Background())
	defer cancel()

	until := res.Sent.Add(ttl)
	tenures := make([]Tenure, len(res.Grants))

	for i, granted := range res.Grants {
		state := store.State{Generation: granted.Row.Generation, Owner: granted.Row.Owner}
		tenures[i] = Tenure{LockID: granted.LockID, State: state, Gate: store.GateOf(granted.LockID)}
	}

	if time.Until(until) <= 0 {
		for i := range tenures {
			d.Queue.Wake(tenures[i].line())
		}

		return
	}

	for i, err := range d.releaseAll(ctx, tenures, until) {
		if err != nil {
			d.Log.Warn("pglocker: a late grant was not returned", "lock", tenures[i].LockID, "locks", len(tenures), "error", err)

			return
		}
	}
}
