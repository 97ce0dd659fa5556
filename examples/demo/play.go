//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// observation is one thing that has to hold.
type observation struct {
	ok   bool
	what string
}

// director reads what the workers report, prints it, and remembers what the
// observations need.
type director struct {
	*stage
	*printer

	tenures []*tenure
	writes  map[int64]int
	// why is why the next grant comes, where the demo knows.
	why string
	// gone are the workers that were killed: their end is no failure.
	gone map[string]bool
}

// tenure is one holding of the lock.
type tenure struct {
	worker  string
	token   int64
	granted time.Time
	// ended is when the holder could no longer act on the lock: it was about to
	// release it, was killed, paused, or told that the lock is lost. Zero: not yet.
	ended time.Time
}

// settle is the time between a grant and what is done to its holder: after some
// writes, and before the first renewal.
const settle = 500 * time.Millisecond

// play runs the three scenes.
func play(ctx context.Context, s *stage, out *printer) ([]observation, error) {
	d := &director{stage: s, printer: out, writes: make(map[int64]int), gone: make(map[string]bool)}

	killed, err := d.takeTurns(ctx)
	if err != nil {
		return nil, err
	}

	afterKill, heir, err := d.killHolder(ctx, killed)
	if err != nil {
		return nil, err
	}

	afterPause, err := d.pauseHolder(ctx, heir)
	if err != nil {
		return nil, err
	}

	writes, backward, shared, err := d.journal(ctx)
	if err != nil {
		return nil, err
	}

	all := slices.Concat(d.exclusion(), afterKill, afterPause)

	return append(all, observation{
		ok: writes > 0 && backward == 0 && shared == 0,
		what: fmt.Sprintf("none of the %d writes that the resource took had a smaller token than the one before,"+
			" and no two workers shared a token", writes),
	}), nil
}

// takeTurns is the first scene. It returns the holder that the next one kills.
func (d *director) takeTurns(ctx context.Context) (*tenure, error) {
	d.scene("Three processes compete for a lock. Its lease: %.0f s, renewed every %.0f s.",
		ttl.Seconds(), renewInterval.Seconds())

	for _, name := range []string{"A", "B", "C"} {
		p, err := d.start(name)
		if err != nil {
			return nil, err
		}

		d.say(name, "starts", "as process %d", p.pid())
	}

	for range 3 {
		if _, err := d.await(ctx, func(e event) bool { return e.Kind == evDone }); err != nil {
			return nil, err
		}
	}

	return d.awaitGrant(ctx)
}

// killHolder is the second scene.
func (d *director) killHolder(ctx context.Context, victim *tenure) ([]observation, *tenure, error) {
	d.scene("The holder is killed. It can't release the lock: its lease has to run out.")

	victim, err := d.settled(ctx, victim)
	if err != nil {
		return nil, nil, err
	}

	p := d.workers[victim.worker]
	d.gone[p.name] = true

	if err := p.signal(syscall.SIGKILL); err != nil {
		return nil, nil, fmt.Errorf("killing worker %s: %w", p.name, err)
	}

	killed := time.Now()
	victim.ended = killed
	d.say(p.name, "KILLED", "by SIGKILL, while it holds token %d", victim.token)

	heir, obs, err := d.succession(ctx, victim, killed, "the kill")

	return obs, heir, err
}

// pauseHolder is the third scene.
func (d *director) pauseHolder(ctx context.Context, sleeper *tenure) ([]observation, error) {
	d.scene("The holder is paused until its lease is over, and goes on unaware.")

	sleeper, err := d.settled(ctx, sleeper)
	if err != nil {
		return nil, err
	}

	p := d.workers[sleeper.worker]
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return nil, fmt.Errorf("pausing worker %s: %w", p.name, err)
	}

	paused := time.Now()
	sleeper.ended = paused
	d.say(p.name, "PAUSED", "by SIGSTOP, while it holds token %d", sleeper.token)

	heir, obs, err := d.succession(ctx, sleeper, paused, "the pause began")
	if err != nil {
		return nil, err
	}

	if _, err := d.await(ctx, func(e event) bool { return e.Kind == evWrote && e.Token == heir.token }); err != nil {
		return nil, err
	}

	continued := time.Now()

	if err := p.signal(syscall.SIGCONT); err != nil {
		return nil, fmt.Errorf("continuing worker %s: %w", p.name, err)
	}

	d.say(p.name, "CONTINUED", "by SIGCONT. It doesn't know that %s has the lock", heir.worker)

	// In which order these two come is up to the worker's goroutines.
	var refused, lost *event

	for refused == nil || lost == nil {
		e, err := d.await(ctx, func(e event) bool {
			return e.Worker == p.name && (e.Kind == evRefused || e.Kind == evLost || e.Kind == evDone)
		})
		if err != nil {
			return nil, err
		}

		switch e.Kind {
		case evRefused:
			refused = &e
		case evLost:
			lost = &e
		case evDone:
			return nil, fmt.Errorf("worker %s ended its turn with token %d and lost nothing", p.name, e.Token)
		}
	}

	again, err := d.awaitGrant(ctx)
	for err == nil && again.worker != p.name {
		again, err = d.awaitGrant(ctx)
	}

	if err != nil {
		return nil, err
	}

	return append(obs,
		observation{
			ok:   refused.Token == sleeper.token,
			what: fmt.Sprintf("the write that %s then tried with its old token %d was refused", p.name, sleeper.token),
		},
		observation{
			ok: lost.IsLost && lost.Token == sleeper.token,
			what: fmt.Sprintf("its context was cancelled with ErrLockLost, %s after it was continued",
				short(lost.At.Sub(continued))),
		},
		observation{
			ok:   again.token > heir.token,
			what: fmt.Sprintf("it competed again and got a new token, %d", again.token),
		}), nil
}

// succession waits for the grant that follows a holder which can't release.
func (d *director) succession(
	ctx context.Context, last *tenure, since time.Time, after string,
) (*tenure, []observation, error) {
	asked := time.Now()

	left, err := d.leaseLeft(ctx)
	if err != nil {
		return nil, nil, err
	}

	d.remark("the database keeps the lock for %s for another %s", last.worker, short(left))
	d.why = fmt.Sprintf(": %s's lease is over", last.worker)

	heir, err := d.awaitGrant(ctx)
	if err != nil {
		return nil, nil, err
	}

	took := heir.granted.Sub(since)

	return heir, []observation{
		{
			ok:   heir.worker != last.worker && took <= ttl,
			what: fmt.Sprintf("%s got the lock %s after %s, within the TTL of %.2f s", heir.worker, short(took), after, ttl.Seconds()),
		},
		{
			ok:   heir.granted.Sub(asked) >= left,
			what: fmt.Sprintf("and it did not get it before %s's lease was over", last.worker),
		},
	}, nil
}

// exclusion is what all grants together have to show.
func (d *director) exclusion() []observation {
	var (
		inOrder  = slices.SortedFunc(slices.Values(d.tenures), func(a, b *tenure) int { return a.granted.Compare(b.granted) })
		rising   = true
		apart    = true
		tokens   string
		previous *tenure
	)

	for _, t := range inOrder {
		if previous != nil {
			rising = rising && t.token > previous.token
			apart = apart && !previous.ended.IsZero() && !t.granted.Before(previous.ended)
			tokens += ", "
		}

		tokens += fmt.Sprint(t.token)
		previous = t
	}

	return []observation{
		{rising, fmt.Sprintf("every grant had a larger token than the one before: %s", tokens)},
		{apart, "no worker got the lock before the last one finished, was killed or paused"},
	}
}

// settled returns a holder some time into its tenure, the given one if that
// hasn't ended by then.
func (d *director) settled(ctx context.Context, t *tenure) (*tenure, error) {
	for {
		until, cancel := context.WithDeadline(ctx, t.granted.Add(settle))
		_, err := d.await(until, func(e event) bool { return e.Kind == evDone })

		cancel()

		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded) && t.ended.IsZero():
			return t, nil
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return nil, err
		}

		if t, err = d.awaitGrant(ctx); err != nil {
			return nil, err
		}
	}
}

func (d *director) awaitGrant(ctx context.Context) (*tenure, error) {
	if _, err := d.await(ctx, func(e event) bool { return e.Kind == evGranted }); err != nil {
		return nil, err
	}

	return d.tenures[len(d.tenures)-1], nil
}

// await takes note of what the workers report until something matches.
func (d *director) await(ctx context.Context, matches func(event) bool) (event, error) {
	for {
		select {
		case e := <-d.events:
			if err := d.note(e); err != nil {
				return event{}, err
			}

			if matches(e) {
				return e, nil
			}
		case <-ctx.Done():
			return event{}, context.Cause(ctx)
		}
	}
}

func (d *director) note(e event) error {
	switch e.Kind {
	case evGranted:
		d.tenures = append(d.tenures, &tenure{worker: e.Worker, token: e.Token, granted: e.At})
		d.sayAt(e.At, e.Worker, "GRANTED", "token %d%s", e.Token, d.why)
		d.why = ""
	case evWrote:
		d.writes[e.Token]++
	case evDone:
		d.end(e)
		d.sayAt(e.At, e.Worker, "releases", "token %d, after %d writes", e.Token, d.writes[e.Token])
	case evRefused:
		d.sayAt(e.At, e.Worker, "FENCED", "its write with token %d is refused: the resource has seen token %d, and takes"+
			" no smaller one. So a holder that is late does no harm", e.Token, d.tenures[len(d.tenures)-1].token)
	case evLost:
		d.end(e)
		d.sayAt(e.At, e.Worker, "LOST", "token %d: its context is cancelled. %s", e.Token, e.Detail)
	case evFailed:
		if !d.gone[e.Worker] {
			return fmt.Errorf("worker %s failed: %s", e.Worker, e.Detail)
		}
	}

	return nil
}

func (d *director) end(e event) {
	for _, t := range d.tenures {
		if t.token == e.Token && t.worker == e.Worker && t.ended.IsZero() {
			t.ended = e.At
		}
	}
}
