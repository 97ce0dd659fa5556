package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/internal/coalesce"
)

const (
	// batchLimit bounds the requests in one statement, and so how long its row locks last.
	batchLimit = 512
	// patience is how long a statement in flight holds back others of its kind: some times what one
	// takes that waits for nothing but the disk.
	patience = 20 * time.Millisecond
	// readyWithin is how long a batch has to get a connection before another takes its place.
	readyWithin = time.Second
	// grace is how long a statement goes on whose callers have all left.
	grace = time.Second
)

// lanes send the requests of one verb each: alone, or with others that come while a statement is in
// flight.
type lanes struct {
	acquire, insert, refresh, get, look, settle, create *lane[Row]
	try, claim                                          *lane[attempted]
	release, releaseSlot, unwanted, markHeld            *lane[bool]

	// connected counts the batches that have a connection.
	connected atomic.Int64
}

func newLanes(s *Store) *lanes {
	return &lanes{
		acquire:     newLane(s, kind[Row]{verb: &acquire, scan: scanGrant}),
		refresh:     newLane(s, kind[Row]{verb: &refresh, scan: scanRow}),
		settle:      newLane(s, kind[Row]{verb: &settle, scan: scanRow}),
		insert:      newLane(s, kind[Row]{verb: &insert, scan: scanRow, inserts: true}),
		create:      newLane(s, kind[Row]{verb: &create, scan: scanRow, inserts: true}),
		get:         newLane(s, kind[Row]{verb: &get, scan: scanRow, reads: true}),
		look:        newLane(s, kind[Row]{verb: &look, scan: scanRow, reads: true}),
		try:         newLane(s, kind[attempted]{verb: &try, scan: scanTry}),
		claim:       newLane(s, kind[attempted]{verb: &claim, scan: scanClaim}),
		markHeld:    newLane(s, kind[bool]{verb: &markHeld, scan: scanBool}),
		release:     newLane(s, kind[bool]{verb: &release, scan: scanBool}),
		releaseSlot: newLane(s, kind[bool]{verb: &releaseSlot, scan: scanBool}),
		unwanted:    newLane(s, kind[bool]{verb: &unwanted, scan: scanBool}),
	}
}

// kind is how a verb's requests are sent, and its answers read.
type kind[T any] struct {
	*verb
	// scan makes the function for one statement's rows, of which behind is the column behind the value.
	scan func(behind *tag) scanFunc[T]
	// reads: it waits for no row.
	reads bool
	// inserts: the rows of a batch are told apart by the id, as with [prepared.byID], and it waits less
	// than the statement for one, see sqlInsertMany.
	inserts bool
	// gate is that of the family that all its requests are for, or "". Its statement waits for the gate,
	// and serves one request as it does several.
	gate string
}

// lane sends requests of one kind.
type lane[T any] struct {
	store   *Store
	kind    kind[T]
	batcher *coalesce.Batcher[request, answer[T]]
	// byShard are those of the plain dialect, where requests of one shard go together.
	byShard sync.Map
}

func newLane[T any](s *Store, k kind[T]) *lane[T] {
	l := &lane[T]{store: s, kind: k}
	l.batcher = l.newBatcher()

	return l
}

func (l *lane[T]) newBatcher() *coalesce.Batcher[request, answer[T]] {
	s := l.store

	return coalesce.New(coalesce.Config[request, answer[T]]{
		One:  func(ctx context.Context, req request) answer[T] { return l.askOne(ctx, req, false) },
		Many: l.fly,
		Left: func(ctx context.Context, sent bool) answer[T] {
			if sent {
				return answer[T]{outcome: unknown, err: ctxError(ctx)}
			}

			return answer[T]{err: s.ended(ctx)}
		},
		Late: l.late,
		Broken: func(cause any) answer[T] {
			err := errDriverLeft
			if cause != nil {
				err = fmt.Errorf("%w: %v", errDriverPanicked, cause)
			}

			return answer[T]{outcome: unknown, err: err}
		},
		Go:       s.detached.start,
		Compare:  func(a, b request) int { return cmp.Compare(a.id, b.id) },
		Limit:    batchLimit,
		Patience: patience,
		Ready:    readyWithin,
		Grace:    grace,
	})
}

// batcherOf returns nil for a request that goes alone.
func (l *lane[T]) batcherOf(req request) *coalesce.Batcher[request, answer[T]] {
	switch sh := req.shape; {
	case !sh.plain:
		return l.batcher
	case len(sh.shards) == 0 || sh.statements.of(l.kind.verb).together == "":
		return nil
	}

	shard := req.shape.shards.of(req.id)

	b, found := l.byShard.Load(shard)
	if !found {
		b, _ = l.byShard.LoadOrStore(shard, l.newBatcher())
	}

	return b.(*coalesce.Batcher[request, answer[T]])
}

// write sends a request, see [persist]. The answer has one row or none. A batch may pass over a
// locked row. With alone, the statement waits for the row, if there is room: see [loners].
func (l *lane[T]) write(ctx context.Context, req request, alone bool) answer[T] {
	return persist(ctx, l.store, func(again bool) answer[T] { return l.ask(ctx, req, alone || again) })
}

// read sends a request that changes nothing, as [read] does.
func (l *lane[T]) read(ctx context.Context, req request) ([]T, error) {
	return persistRead(ctx, l.store, func(again bool) answer[T] { return l.ask(ctx, req, again) })
}

func (l *lane[T]) ask(ctx context.Context, req request, alone bool) answer[T] {
	b := l.batcherOf(req)
	if alone && l.kind.gate == "" || b == nil {
		return l.askOne(ctx, req, alone)
	}

	req.progress = progressOf(ctx)

	return b.Do(ctx, req)
}

// askOne sends the statement for one request, which waits for the row, if there is room for that.
// Else it sends the one for several. A request that was passed over before waits for room first.
func (l *lane[T]) askOne(ctx context.Context, req request, again bool) answer[T] {
	room := l.store.loners

	switch {
	case l.kind.gate != "":
		leave, ok := l.store.atGate(ctx, l.kind.gate)
		if !ok {
			return answer[T]{err: ended(ctx)}
		}
		defer leave()

		return l.alone(ctx, req)
	case l.kind.reads:
	case room.enter(), again && room.wait(ctx, passedOverPause):
		defer room.leave()
	case again && !req.shape.plain:
		return l.batcher.Do(ctx, req)
	default:
		return l.alone(ctx, req)
	}

	l.tell(1)

	text, args := req.shape.statements.of(l.kind.verb).one, req.shape.arguments(l.kind.verb, &req)
	a := askAudibly(ctx, l.store, text, args, l.kind.scan(untagged(new(*string))))
	a.waited = true

	return a
}

// alone sends the statement for several with one request.
func (l *lane[T]) alone(ctx context.Context, req request) answer[T] {
	reqs, answers := []request{req}, make([]answer[T], 1)
	l.divide(ctx, reqs, l.askAgain(ctx, reqs), answers)

	return answers[0]
}

// fly is askMany that waits for room first, where the statement waits for a gate.
func (l *lane[T]) fly(ctx context.Context, take func() []request) []answer[T] {
	if l.kind.gate != "" {
		leave, ok := l.store.atGate(ctx, l.kind.gate)
		if !ok {
			return slices.Repeat([]answer[T]{{err: ended(ctx)}}, len(take()))
		}
		defer leave()
	}

	return l.askMany(ctx, take)
}

// askMany answers requests that gathered while it waited for a connection.
func (l *lane[T]) askMany(ctx context.Context, take func() []request) []answer[T] {
	var (
		reqs  []request
		taken bool
		p     prepared
	)

	defer func() {
		if taken {
			l.store.lanes.connected.Add(-1)
		}
	}()

	// It serves several callers, and ends with none of them.
	ctx = context.WithValue(ctx, callerKey{}, nil)

	a := askDriver(ctx, l.store, func() (prepared, bool) {
		l.store.lanes.connected.Add(1)

		reqs, taken = take(), true
		if len(reqs) == 0 {
			return prepared{}, false
		}

		for _, req := range reqs {
			sending(req.progress)
		}

		p = l.statement(reqs)

		return p, true
	}, scanMany(l.kind.scan, &p))

	if !taken {
		reqs = take()
	}

	answers := make([]answer[T], len(reqs))
	l.divide(ctx, reqs, a, answers)

	return answers
}

// statement is that for several requests.
func (l *lane[T]) statement(reqs []request) prepared {
	sh := reqs[0].shape
	t := sh.statements.of(l.kind.verb)

	if sh.plain {
		l.tell(len(reqs))

		if len(reqs) == 1 {
			return prepared{t.many, sh.arguments(l.kind.verb, &reqs[0]), 1, reqs, l.kind.inserts}
		}

		return prepared{t.together, plainVerbs[l.kind.verb].given.ofMany(reqs, sh.full), len(reqs), reqs, false}
	}

	text, given := t.many, l.kind.given
	if l.kind.dated != "" {
		if given = l.kind.undated; slices.ContainsFunc(reqs, func(r request) bool { return r.seen != 0 || r.hold != 0 }) {
			text, given = t.dated, l.kind.given
		}
	}

	byID := l.kind.inserts
	if text == t.many && t.byID != "" && len(reqs) >= enough && alike(reqs) {
		text, byID = t.byID, true
	}

	l.tell(len(reqs))

	return prepared{l.store.audible(text), given.ofMany(reqs, sh.full), len(reqs), reqs, byID}
}

// enough is how many requests make up for the greater cost of a statement by itself that goes by ids.
const enough = 16

// alike reports whether requests, which are sorted, are for different locks, and all for one TTL.
func alike(reqs []request) bool {
	for i := 1; i < len(reqs); i++ {
		if reqs[i].id == reqs[i-1].id || reqs[i].ttl != reqs[0].ttl {
			return false
		}
	}

	return true
}

func (l *lane[T]) askAgain(ctx context.Context, reqs []request) answer[one[T]] {
	p := l.statement(reqs)

	return askPrepared(ctx, l.store, p, scanMany(l.kind.scan, &p))
}

// several sends requests of one caller, sorted by id. With one it is as [lane.write]. Several go in
// one statement, once, and in parts only if that was refused. It passes over locked rows.
func (l *lane[T]) several(ctx context.Context, reqs []request) []answer[T] {
	if len(reqs) == 1 {
		return []answer[T]{l.write(ctx, reqs[0], false)}
	}

	answers := make([]answer[T], len(reqs))
	if reqs[0].shape.plain {
		sideBySide(len(reqs), func(i int) { answers[i] = l.askOne(ctx, reqs[i], false) })
	} else {
		l.divide(ctx, reqs, l.askAgain(ctx, reqs), answers)
	}

	for i := range answers {
		switch a := &answers[i]; {
		case a.err == nil:
		case a.outcome == unknown:
			a.err = fmt.Errorf("%w: %w", ErrUnknownOutcome, a.err)
		default:
			a.err = l.store.named(ctx, a.err)
		}
	}

	return answers
}

// tell tells how many requests a statement carries.
func (l *lane[T]) tell(requests int) {
	if l.store.batch == nil {
		return
	}

	switch l.kind.verb {
	case &acquire, &insert, &refresh, &try, &claim:
		l.store.batch(true, requests)
	case &release, &releaseSlot, &unwanted:
		l.store.batch(false, requests)
	}
}

// late tells of a grant whose caller has left.
func (l *lane[T]) late(req request, a answer[T]) {
	if len(a.rows) == 0 || !req.discard || l.store.late == nil {
		return
	}

	row, granted := any(a.rows[0]).(Row)

	if r, tried := any(a.rows[0]).(attempted); tried {
		row, granted = r.row, r.granted
	}

	if granted {
		l.store.late(req.id, Result{Verdict: Granted, Row: row, Sent: a.sent}, time.Duration(req.ttl)*time.Microsecond)
	}
}

// spread gives each request its part of an answer.
func (l *lane[T]) spread(reqs []request, a answer[one[T]], answers []answer[T]) {
	// A refusal of a single request is its own, unless the statement for one would have waited, and this hasn't.
	shared := len(reqs) > 1 || l.kind.gate == "" && sqlState(a.err) == codeLockNotAvailable

	for i := range answers {
		answers[i] = answer[T]{sent: a.sent, named: a.named, outcome: a.outcome, err: a.err, shared: shared}
	}

	values := make([]T, len(a.rows))
	strange := false

	for k, row := range a.rows {
		if row.place < 0 {
			strange = true

			continue
		}

		values[k] = row.value

		if own := &answers[row.place].rows; *own == nil {
			*own = values[k : k+1 : k+1]
		} else {
			*own = append(*own, row.value) // a request for several slots
		}
	}

	if !strange {
		return
	}

	// One of the requests was carried out, and nobody can say which.
	for i := range answers {
		if len(answers[i].rows) == 0 {
			answers[i].outcome, answers[i].err = unknown, errStrangeID
		}
	}
}

// errStrangeID: the table changes ids as they are written.
var errStrangeID = errors.New("pglocker: the table shows another lock_id than was written")
