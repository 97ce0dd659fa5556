package store

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// plainRenewal is one call of Renew in the plain dialect. It sends a statement for each shard, one after the other, since
// renewals have one connection. A worker of Citus that hangs, and doesn't break its connections, answers none of its own. It
// must not cost a lease of another worker:
//
//   - tell is called after each statement. The renewer sends what has no answer again, over another connection, when its
//     patience with the first ends.
//   - Workers that owe an answer come last then.
//   - A worker that owes an answer and was asked just now is not asked again: other leases may wait for the connection.
type plainRenewal struct {
	store    *Store
	sh       *shape
	renewals []Renewal
	tell     RenewedFunc
	results  []RenewResult
	// sent is the moment before the first statement that was answered, and failed the last answer without rows.
	sent   time.Time
	failed answer[renewed]
}

// renewPlainly renews the leases of each shard in one statement. If the shards aren't known it renews all in one where
// the server takes that, else each in one of its own. A statement for several that was refused is divided. Leases whose
// statement failed are unanswered. It fails if all statements did.
func (s *Store) renewPlainly(ctx context.Context, sh *shape, renewals []Renewal, tell RenewedFunc) answer[RenewResult] {
	r := &plainRenewal{
		store: s, sh: s.placed(ctx, sh), renewals: renewals, tell: tell,
		results: slices.Repeat([]RenewResult{{State: RenewUnanswered}}, len(renewals)),
	}

	if len(r.sh.shards) == 0 {
		r.ask(ctx, r.together())
	}

	for _, w := range r.workers() {
		if ctx.Err() != nil {
			break
		}

		if ended, ok := s.shape.asking.begin(w); ok {
			func() {
				silent := true // if it panics
				defer func() { ended(silent) }()

				silent = r.ask(ctx, w.groups)
			}()
		}
	}

	if r.failed.err != nil && r.sent.IsZero() {
		return answer[RenewResult]{outcome: r.failed.outcome, err: r.failed.err}
	}

	return answer[RenewResult]{rows: r.results, sent: r.sent}
}

// worker is a server, and the leases of its rows.
type worker struct {
	node   int32
	groups [][]int // by shard
	left   time.Duration
}

// workers are those that have rows, and those last that owe answers. Where the shards aren't known there are none.
func (r *plainRenewal) workers() (all []*worker) {
	if len(r.sh.shards) == 0 {
		return nil
	}

	of := make(map[int32]*worker)

	for _, group := range r.together() {
		node := r.sh.shards[r.sh.shards.of(r.renewals[group[0]].LockID)].node
		w := of[node]
		if w == nil {
			w = &worker{node: node, left: r.renewals[group[0]].Left}
			of[node], all = w, append(all, w)
		}

		w.groups = append(w.groups, group)

		for _, place := range group {
			w.left = min(w.left, r.renewals[place].Left)
		}
	}

	slices.SortStableFunc(all, func(a, b *worker) int {
		return cmp.Compare(r.store.shape.asking.owed(a), r.store.shape.asking.owed(b))
	})

	return all
}

// together are the places of the renewals of each statement.
func (r *plainRenewal) together() (groups [][]int) {
	places := make(map[int]int)

	for i := range r.renewals {
		key := i

		switch {
		case r.sh.waits || len(r.sh.shards) == 0 && r.store.shape.singly.Load():
		case len(r.sh.shards) == 0:
			key = 0
		default:
			key = r.sh.shards.of(r.renewals[i].LockID)
		}

		place, found := places[key]
		if !found {
			place = len(groups)
			places[key], groups = place, append(groups, nil)
		}

		groups[place] = append(groups[place], i)
	}

	return groups
}

// ask sends a statement for each group, and divides what is refused. Only where the shards aren't known it sends them side
// by side. It reports whether the server was asked and has answered nothing.
func (r *plainRenewal) ask(ctx context.Context, groups [][]int) (silent bool) {
	answered := false

	for len(groups) > 0 {
		var again [][]int

		beside := 1
		if len(r.sh.shards) == 0 {
			beside = len(groups)
		}

		for part := range slices.Chunk(groups, beside) {
			answers := make([]answer[renewed], len(part))
			sideBySide(len(part), func(i int) { answers[i] = r.send(ctx, part[i]) })

			for i, a := range answers {
				answered = answered || a.err == nil || a.outcome == refused
				silent = silent || a.outcome == unknown
				again = append(again, r.take(ctx, part[i], a)...)
			}
		}

		groups = again
	}

	return silent && !answered
}

// take takes the answer about a group, and returns the parts in which it is to be sent again.
func (r *plainRenewal) take(ctx context.Context, group []int, a answer[renewed]) (again [][]int) {
	switch {
	case a.err == nil:
		r.answered(ctx, group, a)

		return nil
	case a.outcome == refused && len(group) > 1 && notTogether(a.err):
		if r.store.shape.apart(r.sh, a.err); len(r.sh.shards) == 0 {
			r.store.shape.singly.Store(true)
		}

		// The statements for one tell whether it is for their number.
		return slices.Collect(slices.Chunk(group, 1))
	case a.outcome == refused && len(group) > 1 && Divides(a.err):
		return [][]int{group[:len(group)/2], group[len(group)/2:]}
	}

	r.failed = a

	for _, place := range group {
		if a.outcome == refused || ctx.Err() == nil {
			r.results[place].Err = a.err
		}
	}

	return nil
}

// send sends the statement for a group.
func (r *plainRenewal) send(ctx context.Context, group []int) answer[renewed] {
	reqs := requests(valuesOf(group, func(place *int) Renewal { return r.renewals[*place] }))
	t := r.sh.statements.of(&renew)
	text, args := t.one, r.sh.arguments(&renew, &reqs[0])

	if len(group) > 1 {
		text, args = t.together, plainVerbs[&renew].given.ofMany(reqs, r.sh.full)
	}

	return r.store.sendRenewal(ctx, text, args, scanRenewedOne(len(group)))
}

// answered tells of the leases of a group. Those without a row were passed over: they are busy or gone.
func (r *plainRenewal) answered(ctx context.Context, group []int, a answer[renewed]) {
	if r.sent.IsZero() || a.sent.Before(r.sent) {
		r.sent = a.sent
	}

	for _, row := range a.rows {
		for _, place := range row.places {
			r.results[group[place]] = row.result()
		}
	}

	of := func(state RenewState) (places []int) {
		for _, place := range group {
			if r.results[place].State == state {
				places = append(places, place)
			}
		}

		return places
	}

	passed := of(RenewUnanswered)
	r.told(of(Renewed), a.sent)

	if len(passed) > 0 {
		r.stillHeld(ctx, passed)
		r.told(passed, a.sent)
	}
}

func (r *plainRenewal) told(places []int, sent time.Time) {
	if r.tell != nil && len(places) > 0 {
		r.tell(places, valuesOf(places, func(place *int) RenewResult { return r.results[*place] }), sent)
	}
}

// stillHeld is [Store.stillHeld].
func (r *plainRenewal) stillHeld(ctx context.Context, places []int) {
	reqs := requests(valuesOf(places, func(place *int) Renewal { return r.renewals[*place] }))

	sideBySide(len(reqs), func(i int) {
		rows, err := read(ctx, r.store, r.sh.statements.of(&held).one, r.sh.arguments(&held, &reqs[i]), scanOne[int64])

		r.results[places[i]] = RenewResult{State: RenewGone}
		if err != nil || len(rows) > 0 {
			r.results[places[i]].State = RenewBusy
		}
	})
}

// notTogether reports whether a server may have refused a statement because it is about several locks.
func notTogether(err error) bool { return hasState(err, "0A", "42") }

// placed returns the shape with the shards where they are now, if a worker owes an answer: since they were looked up,
// they may have moved.
func (s *Store) placed(ctx context.Context, sh *shape) *shape {
	if len(sh.shards) == 0 || !s.shape.asking.doubtful(time.Now()) {
		return sh
	}

	found, err := s.readShards(ctx)
	if err != nil || len(found) == 0 || slices.Equal(found, sh.shards) {
		return sh
	}

	moved := *sh
	moved.shards = found
	s.shape.found.CompareAndSwap(sh, &moved)

	return &moved
}

// placedFor is for how long the places of shards are believed while a worker owes an answer.
const placedFor = time.Second
