package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/internal/coalesce"
)

const (
	// batchLimit bounds the requests in one statement, and so how long its row locks
	// last and how long the first of them waits for the last.
	batchLimit = 512
	// patience is how long a statement in flight holds back others of its kind. It is
	// some times what one takes that waits for nothing but the disk.
	patience = 20 * time.Millisecond
	// readyWithin is how long a batch has to get a connection, which may have to be opened
	// on a server far away or busy, before its place is another's.
	readyWithin = time.Second
	// grace is how long a statement goes on whose callers have all left.
	grace = time.Second
)

// request is what one caller asks of one lock. Which fields count depends on the
// kind of request.
type request struct {
	shape      *shape
	id         string
	owner      string
	ttl        int64 // microseconds
	generation int64
	hold       int64 // microseconds
	// seen is [State].Until in microseconds, see sqlSeen; 0 for none.
	seen int64
	// discard: if the caller has left, nobody wants the grant.
	discard bool
	// progress is told when it is sent.
	progress *progress
}

// lanes send requests, each one a kind of them: alone, or with others that come
// while a statement is in flight.
type lanes struct {
	acquire, insert, refresh, get *lane[Row]
	release                       *lane[bool]

	// connected counts the batches that have a connection.
	connected atomic.Int64
}

func newLanes(s *Store) *lanes {
	return &lanes{
		acquire: newLane(s, kind[Row]{
			one: func(r request) (string, []any) {
				return r.shape.statements.acquire, r.withOwner(r.id, r.ttl)
			},
			many:    func(st *statements) string { return st.acquireMany },
			columns: acquireColumns,
			scan:    scanRow,
			scanOne: scanNumbered,
		}),
		insert: newLane(s, kind[Row]{
			one: func(r request) (string, []any) {
				return r.shape.statements.insert, r.withOwner(r.id, r.ttl)
			},
			many:    func(st *statements) string { return st.insertMany },
			columns: acquireColumns,
			scan:    scanRow,
			scanOne: func() scanFunc[one[Row]] {
				var (
					id  string
					row = newRowScanner(&id)
				)

				return func(from scanner) (o one[Row], err error) {
					o.value, err = row.scan(from)
					o.id = id

					return o, err
				}
			},
		}),
		refresh: newLane(s, kind[Row]{
			one: func(r request) (string, []any) {
				args := r.withOwner(r.id, r.ttl, r.generation)
				if r.seen == 0 {
					return r.shape.statements.refresh, args
				}

				return r.shape.statements.refreshSeen, append(args, r.seen)
			},
			many:    func(st *statements) string { return st.refreshMany },
			columns: refreshColumns,
			scan:    scanRow,
			scanOne: scanNumbered,
		}),
		get: newLane(s, kind[Row]{
			one:     func(r request) (string, []any) { return r.shape.statements.get, []any{r.id} },
			many:    func(st *statements) string { return st.getMany },
			columns: getColumns,
			scan:    scanRow,
			scanOne: scanNumbered,
		}),
		release: newLane(s, kind[bool]{
			one: func(r request) (string, []any) {
				if r.seen == 0 {
					return r.shape.statements.release, []any{r.id, r.generation, r.hold}
				}

				return r.shape.statements.releaseSeen, []any{r.id, r.generation, r.hold, r.seen}
			},
			many:    func(st *statements) string { return st.releaseMany },
			columns: releaseColumns,
			scan: func(from scanner) (notified bool, err error) {
				var effect *string

				err = from.Scan(&notified, &effect)

				return notified, err
			},
			scanOne: func() scanFunc[one[bool]] {
				var (
					scanned one[bool]
					dest    = []any{&scanned.value, &scanned.number}
				)

				return func(from scanner) (one[bool], error) {
					err := from.Scan(dest...)

					return scanned, err
				}
			},
		}),
	}
}

// withOwner are arguments; the owner goes last, where the table has that column.
func (r request) withOwner(args ...any) []any {
	if r.shape.full {
		args = append(args, r.owner)
	}

	return args
}

// kind is how one kind of request is written, and its answers are read.
type kind[T any] struct {
	one     func(request) (text string, args []any)
	many    func(*statements) string
	columns arrayColumns
	scan    scanFunc[T]
	// scanOne makes the function for one statement's rows.
	scanOne func() scanFunc[one[T]]
}

// one is the answer to one of several requests: to that of this number, counted from
// 1, or of this id.
type one[T any] struct {
	number int64
	id     string
	value  T
}

func scanNumbered() scanFunc[one[Row]] {
	var (
		number int64
		row    = newRowScanner(&number)
	)

	return func(from scanner) (o one[Row], err error) {
		o.value, err = row.scan(from)
		o.number = number

		return o, err
	}
}

// lane sends requests of one kind.
type lane[T any] struct {
	store   *Store
	kind    kind[T]
	batcher *coalesce.Batcher[request, answer[T]]
}

func newLane[T any](s *Store, k kind[T]) *lane[T] {
	l := &lane[T]{store: s, kind: k}
	l.batcher = coalesce.New(coalesce.Config[request, answer[T]]{
		One:  l.askOne,
		Many: l.askMany,
		Left: func(ctx context.Context, sent bool) answer[T] {
			if sent {
				return answer[T]{outcome: unknown, err: ctxError(ctx)}
			}

			return answer[T]{err: s.ended(ctx)}
		},
		Late: l.late,
		Go: func(run func()) {
			s.detached.add()

			go func() {
				defer s.detached.done()
				run()
			}()
		},
		Compare:  func(a, b request) int { return cmp.Compare(a.id, b.id) },
		Limit:    batchLimit,
		Patience: patience,
		Ready:    readyWithin,
		Grace:    grace,
	})

	return l
}

// write sends a request as [write] sends a statement. The answer has one row or
// none; alone, it waits for the lock's row, and otherwise it may pass over a row that
// somebody else has locked.
func (l *lane[T]) write(ctx context.Context, req request, alone bool) answer[T] {
	return persist(ctx, l.store, func(again bool) answer[T] { return l.ask(ctx, req, alone || again) })
}

// read sends a request that changes nothing, as [read] does.
func (l *lane[T]) read(ctx context.Context, req request) ([]T, error) {
	return persistRead(ctx, l.store, func(again bool) answer[T] { return l.ask(ctx, req, again) })
}

func (l *lane[T]) ask(ctx context.Context, req request, alone bool) answer[T] {
	if alone || req.seen != 0 || req.hold != 0 { // which the statement for many has no place for
		return l.askOne(ctx, req)
	}

	req.progress = progressOf(ctx)

	return l.batcher.Do(ctx, req)
}

func (l *lane[T]) askOne(ctx context.Context, req request) answer[T] {
	text, args := l.kind.one(req)

	return ask(ctx, l.store, text, args, l.kind.scan)
}

// askMany answers requests that gathered while it waited for a connection.
func (l *lane[T]) askMany(ctx context.Context, take func() []request) []answer[T] {
	var (
		reqs  []request
		taken bool
		a     answer[one[T]]
	)

	ctx = stay(ctx)

	if behind, ok := l.store.mayStay(ctx); ok {
		// Nobody waits for it any more then, but for a grant that has to be returned.
		stop := context.AfterFunc(ctx, behind.leave)

		a = askDriver(ctx, l.store, func() (prepared, bool) {
			l.store.lanes.connected.Add(1)

			reqs, taken = take(), true
			if len(reqs) == 0 {
				return prepared{}, false
			}

			for _, req := range reqs {
				req.progress.send()
			}

			return l.statement(reqs), true
		}, l.kind.scanOne())

		stop()
		behind.end()
	} else {
		a = answer[one[T]]{err: l.store.ended(ctx)}
	}

	if taken {
		l.store.lanes.connected.Add(-1)
	} else {
		reqs = take()
	}

	answers := make([]answer[T], len(reqs))
	l.settle(ctx, reqs, a, answers)

	return answers
}

// statement is that for several requests.
func (l *lane[T]) statement(reqs []request) prepared {
	sh := reqs[0].shape

	return prepared{l.kind.many(&sh.statements), l.kind.columns.of(reqs, sh.full), len(reqs)}
}

// settle turns the answer to a statement into those to its requests. Where it was
// refused on account of some of them, the halves are asked separately, down to those
// that have to ask alone.
func (l *lane[T]) settle(ctx context.Context, reqs []request, a answer[one[T]], answers []answer[T]) {
	for n := 1; a.outcome == refused && n < sendAttempts && l.store.lostStatement(a.err, a.named); n++ {
		a = l.askAgain(ctx, reqs)
	}

	if a.outcome == refused && divisible(a.err) && len(reqs) > 1 {
		half := len(reqs) / 2
		l.settle(ctx, reqs[:half], l.askAgain(ctx, reqs[:half]), answers[:half])
		l.settle(ctx, reqs[half:], l.askAgain(ctx, reqs[half:]), answers[half:])

		return
	}

	for i := range answers {
		answers[i] = answer[T]{sent: a.sent, named: a.named, outcome: a.outcome, err: a.err, shared: true}
	}

	values := make([]T, len(a.rows))
	strange := false

	for k, row := range a.rows {
		i := int(row.number) - 1
		if row.id != "" {
			i = indexOf(reqs, row.id)
		}

		if i < 0 {
			strange = true

			continue
		}

		values[k] = row.value
		answers[i].rows = values[k : k+1 : k+1]
	}

	if strange {
		l.mistake(answers)
	}
}

func (l *lane[T]) askAgain(ctx context.Context, reqs []request) answer[one[T]] {
	return askDriver(ctx, l.store, func() (prepared, bool) { return l.statement(reqs), true }, l.kind.scanOne())
}

// mistake answers requests of which one was carried out, and nobody can say which: the
// table changes ids as they are written.
func (l *lane[T]) mistake(answers []answer[T]) {
	for i := range answers {
		if len(answers[i].rows) == 0 {
			answers[i].outcome, answers[i].err = unknown, errStrangeID
		}
	}
}

var errStrangeID = errors.New("pglocker: the table shows another lock_id than was written")

// late gives up a grant whose caller has left.
func (l *lane[T]) late(req request, a answer[T]) {
	if len(a.rows) == 0 || !req.discard || l.store.late == nil {
		return
	}

	if row, ok := any(a.rows[0]).(Row); ok {
		l.store.late(req.id, Result{Verdict: Granted, Row: row, Sent: a.sent}, time.Duration(req.ttl)*time.Microsecond)
	}
}

// indexOf is the first of the sorted requests for the lock, or -1.
func indexOf(reqs []request, id string) int {
	i, found := slices.BinarySearchFunc(reqs, id, func(r request, id string) int { return cmp.Compare(r.id, id) })
	if !found {
		return -1
	}

	return i
}

// arrayColumns are the columns of the arrays that a statement for several locks is
// given, in the order of its parameters.
type arrayColumns []string

var (
	acquireColumns = arrayColumns{"lock_id", "ttl", "owner"}
	refreshColumns = arrayColumns{"lock_id", "ttl", "generation", "owner"}
	releaseColumns = arrayColumns{"lock_id", "generation"}
	renewColumns   = arrayColumns{"lock_id", "generation", "ttl"}
	heldColumns    = arrayColumns{"lock_id", "generation"}
	getColumns     = arrayColumns{"lock_id"}
)

// for a table of three columns there are no owners, which stand last.
func (c arrayColumns) shaped(full bool) arrayColumns {
	if !full && c[len(c)-1] == "owner" {
		return c[:len(c)-1]
	}

	return c
}

// in writes the parameters and their names into a statement. Hidden in a subquery, an
// array can't tempt the planner to plan for its length, which takes as long as the
// statement itself, time and again.
func (c arrayColumns) in(text string, full bool, idKind string) string {
	c = c.shaped(full)
	params := make([]string, len(c))

	for i, name := range c {
		kind := "text[]"

		switch {
		case name == "ttl" || name == "generation":
			kind = "bigint[]"
		case name == "lock_id" && idKind != "text" && idKind != "character varying":
			// As text it would not be looked up in the index, or not compared in the same
			// way, as by a statement for one lock.
			kind += "::" + idKind + "[]"
		}

		params[i] = "(SELECT $" + strconv.Itoa(i+1) + "::" + kind + ")"
	}

	return strings.NewReplacer("{arrays}", strings.Join(params, ", "), "{columns}", strings.Join(c, ", ")).Replace(text)
}

// of are the arguments for requests.
func (c arrayColumns) of(reqs []request, full bool) []any {
	c = c.shaped(full)
	args := make([]any, len(c))

	for i, name := range c {
		switch name {
		case "lock_id":
			args[i] = valuesOf(reqs, func(r request) string { return r.id })
		case "owner":
			args[i] = valuesOf(reqs, func(r request) string { return r.owner })
		case "ttl":
			args[i] = valuesOf(reqs, func(r request) int64 { return r.ttl })
		case "generation":
			args[i] = valuesOf(reqs, func(r request) int64 { return r.generation })
		}
	}

	return args
}

// valuesOf is one value of each.
func valuesOf[T, V any](of []T, value func(T) V) []V {
	values := make([]V, len(of))
	for i := range of {
		values[i] = value(of[i])
	}

	return values
}
