package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

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
	// mark, in microseconds, and signature are those of a claim.
	mark, signature int64
	// owners are those of a give-back, as an array literal.
	owners string
	// discard: if the caller has left, nobody wants the grant.
	discard bool
	// progress is told when it is sent.
	progress *progress
}

// lanes send requests, each one a kind of them: alone, or with others that come
// while a statement is in flight.
type lanes struct {
	acquire, insert, refresh, get, look, confirm, create *lane[Row]
	try, claim                                           *lane[attempted]
	release, giveBack                                    *lane[bool]

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
			scanOne: scanNamed,
			hurried: true,
		}),
		create: newLane(s, kind[Row]{
			one:     func(r request) (string, []any) { return r.shape.statements.create, []any{r.id} },
			many:    func(st *statements) string { return st.createMany },
			columns: getColumns,
			scan:    scanRow,
			scanOne: scanNamed,
			hurried: true,
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
			dated:   func(st *statements) (string, arrayColumns) { return st.refreshManyDated, refreshDatedColumns },
			scan:    scanRow,
			scanOne: scanNumbered,
		}),
		confirm: newLane(s, kind[Row]{
			one:     func(r request) (string, []any) { return r.shape.statements.confirm, []any{r.id, r.owner} },
			many:    func(st *statements) string { return st.confirmMany },
			columns: confirmColumns,
			scan:    scanRow,
			scanOne: scanNumbered,
		}),
		try: newLane(s, kind[attempted]{
			one:     func(r request) (string, []any) { return r.shape.statements.try, r.withOwner(r.id, r.ttl) },
			many:    func(st *statements) string { return st.tryMany },
			columns: acquireColumns,
			scan:    scanTry,
			scanOne: func() scanFunc[one[attempted]] {
				var (
					o   one[attempted]
					row = newRowScanner(&o.number, &o.value.granted)
				)

				return func(from scanner) (_ one[attempted], err error) {
					o.value.row, err = row.scan(from)
					o.value.mark = o.value.row.ContendedUntil

					return o, err
				}
			},
		}),
		claim: newLane(s, kind[attempted]{
			one: func(r request) (string, []any) {
				return r.shape.statements.claim, []any{r.id, r.ttl, r.owner, r.mark, r.signature}
			},
			many:    func(st *statements) string { return st.claimMany },
			columns: claimColumns,
			scan:    scanClaim,
			scanOne: func() scanFunc[one[attempted]] {
				var (
					o    one[attempted]
					mark pgtype.Timestamptz
					row  = newRowScanner(&o.number, &o.value.granted, &mark)
				)

				return func(from scanner) (_ one[attempted], err error) {
					o.value.row, err = row.scan(from)
					o.value.mark, o.value.marked = mark.Time.UTC(), !o.value.granted

					return o, err
				}
			},
		}),
		get: newLane(s, kind[Row]{
			one:     func(r request) (string, []any) { return r.shape.statements.get, []any{r.id} },
			many:    func(st *statements) string { return st.getMany },
			columns: getColumns,
			scan:    scanRow,
			scanOne: scanNumbered,
			reads:   true,
		}),
		look: newLane(s, kind[Row]{
			one:     func(r request) (string, []any) { return r.shape.statements.look, []any{r.id} },
			many:    func(st *statements) string { return st.lookMany },
			columns: getColumns,
			scan:    scanRow,
			scanOne: scanNumbered,
			reads:   true,
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
			dated:   func(st *statements) (string, arrayColumns) { return st.releaseManyDated, releaseDatedColumns },
			scan: func(from scanner) (notified bool, err error) {
				var effect *string

				err = from.Scan(&notified, &effect)

				return notified, err
			},
			scanOne: scanNotified,
		}),
		giveBack: newLane(s, kind[bool]{
			one: func(r request) (string, []any) {
				return r.shape.statements.giveBack, []any{r.id, r.owners}
			},
			many:    func(st *statements) string { return st.giveBackMany },
			columns: giveBackColumns,
			scan: func(from scanner) (freed bool, err error) {
				var (
					notified *bool
					lazy     *string
				)

				err = from.Scan(&freed, &notified, &lazy)

				return freed, err
			},
			scanOne: scanNotified,
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
	// dated is what is used instead if a request goes by more than a generation, or is to
	// take effect later.
	dated func(*statements) (text string, columns arrayColumns)
	scan  scanFunc[T]
	// scanOne makes the function for one statement's rows.
	scanOne func() scanFunc[one[T]]
	// reads: it waits for no row.
	reads bool
	// hurried: the statement for several waits less than the one for one, see sqlInsertMany.
	hurried bool
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

// scanNamed is for the statements that insert, whose rows are told apart by the id.
func scanNamed() scanFunc[one[Row]] {
	var (
		id  string
		row = newRowScanner(&id)
	)

	return func(from scanner) (o one[Row], err error) {
		o.value, err = row.scan(from)
		o.id = id

		return o, err
	}
}

func scanNotified() scanFunc[one[bool]] {
	var (
		scanned one[bool]
		dest    = []any{&scanned.value, &scanned.number}
	)

	return func(from scanner) (one[bool], error) {
		err := from.Scan(dest...)

		return scanned, err
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
		One:  func(ctx context.Context, req request) answer[T] { return l.askOne(ctx, req, false) },
		Many: l.askMany,
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

// write sends a request as [write] sends a statement. The answer has one row or none. The
// statement may pass over a row that another transaction has locked. With alone, one is sent
// that waits for the row, if there is room: see [loners].
func (l *lane[T]) write(ctx context.Context, req request, alone bool) answer[T] {
	return persist(ctx, l.store, func(again bool) answer[T] { return l.ask(ctx, req, alone || again) })
}

// read sends a request that changes nothing, as [read] does.
func (l *lane[T]) read(ctx context.Context, req request) ([]T, error) {
	return persistRead(ctx, l.store, func(again bool) answer[T] { return l.ask(ctx, req, again) })
}

func (l *lane[T]) ask(ctx context.Context, req request, alone bool) answer[T] {
	if alone {
		return l.askOne(ctx, req, true)
	}

	req.progress = progressOf(ctx)

	return l.batcher.Do(ctx, req)
}

// askOne sends the statement for one request, which waits for the lock's row, if there is
// room for another that waits. Else it sends the one for several, which doesn't wait. A
// request that was passed over before waits for room at first, and then goes with others.
func (l *lane[T]) askOne(ctx context.Context, req request, again bool) answer[T] {
	room := l.store.loners

	switch {
	case l.kind.reads:
	case room.enter(), again && room.wait(ctx, passedOverPause):
		defer room.leave()
	case again:
		return l.batcher.Do(ctx, req)
	default:
		reqs, answers := []request{req}, make([]answer[T], 1)
		l.settle(ctx, reqs, l.askAgain(ctx, reqs), answers)

		return answers[0]
	}

	text, args := l.kind.one(req)
	text = l.store.audible(text)
	send := func(text string) answer[T] { return ask(ctx, l.store, text, args, l.kind.scan) }

	a := orQuietly(l.store, text, send(text), send)
	a.waited = true

	return a
}

// askMany answers requests that gathered while it waited for a connection.
func (l *lane[T]) askMany(ctx context.Context, take func() []request) []answer[T] {
	var (
		reqs  []request
		taken bool
		a     answer[one[T]]
	)

	defer func() {
		if taken {
			l.store.lanes.connected.Add(-1)
		}
	}()

	ctx = stay(ctx)

	if behind, ok := l.store.mayStay(ctx); ok {
		defer behind.end()

		// No caller waits for it any more then. But a grant that it brings is returned.
		stop := context.AfterFunc(ctx, behind.leave)
		defer stop()

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

	} else {
		a = answer[one[T]]{err: l.store.ended(ctx)}
	}

	if !taken {
		reqs = take()
	}

	answers := make([]answer[T], len(reqs))
	l.settle(ctx, reqs, a, answers)

	return answers
}

// statement is that for several requests.
func (l *lane[T]) statement(reqs []request) prepared {
	sh := reqs[0].shape

	text, columns := l.kind.many(&sh.statements), l.kind.columns
	if slices.ContainsFunc(reqs, func(r request) bool { return r.seen != 0 || r.hold != 0 }) {
		text, columns = l.kind.dated(&sh.statements)
	}

	return prepared{l.store.audible(text), columns.of(reqs, sh.full), len(reqs)}
}

// settle turns the answer to a statement into those to its requests. Where it was
// refused on account of some of them, the halves are asked separately, down to those
// that have to ask alone. See sample for what may be refused to all.
func (l *lane[T]) settle(ctx context.Context, reqs []request, a answer[one[T]], answers []answer[T]) {
	var moved tries

	for n := 1; a.outcome == refused; n++ {
		lost := n < sendAttempts && l.store.lostStatement(a.err, a.named)
		if !lost && !l.store.afresh(a.err, &moved) {
			break
		}

		a = l.askAgain(ctx, reqs)
	}

	if a.outcome == refused {
		p := l.statement(reqs)
		a = orQuietly(l.store, p.text, a, func(text string) answer[one[T]] {
			return ask(ctx, l.store, text, p.args, l.kind.scanOne())
		})
	}

	switch {
	case a.outcome != refused:
	case sweeping(a.err) && len(reqs) > 2:
		l.sample(ctx, reqs, a, answers)

		return
	case divisible(a.err) && len(reqs) > 1:
		l.halve(ctx, reqs, answers)

		return
	}

	l.spread(reqs, a, answers)
}

// sample settles requests that were refused for a reason which may be the same for all. They
// are all refused if the first and the last of them are, each alone, and then those between
// together, and one of these alone. So it takes a few statements to learn that the table is
// locked, and a few rows that are refused don't cost the others.
func (l *lane[T]) sample(ctx context.Context, reqs []request, a answer[one[T]], answers []answer[T]) {
	settle := func(from, to int) {
		if from < to {
			l.settle(ctx, reqs[from:to], l.askAgain(ctx, reqs[from:to]), answers[from:to])
		}
	}

	last := len(reqs) - 1
	middle := last / 2

	settle(0, 1)
	settle(last, last+1)

	rest := answers[1:last]

	if !refusedAs(answers[0], a.err) || !refusedAs(answers[last], a.err) {
		l.halve(ctx, reqs[1:last], rest)

		return
	}

	again := l.askAgain(ctx, reqs[1:last])
	if again.outcome != refused || sqlState(again.err) != sqlState(a.err) {
		l.settle(ctx, reqs[1:last], again, rest)

		return
	}

	settle(middle, middle+1)

	if !refusedAs(answers[middle], a.err) {
		settle(1, middle)
		settle(middle+1, last)

		return
	}

	l.spread(reqs[1:last], again, rest)

	// Alone, each would wait in vain as long as these have.
	code := sqlState(a.err)
	if code == codeQueryCanceled || code == codeLockNotAvailable && !l.kind.hurried {
		for i := range rest {
			rest[i].shared = false
		}
	}
}

func refusedAs[T any](a answer[T], err error) bool {
	return a.outcome == refused && sqlState(a.err) == sqlState(err)
}

// halve asks for the halves separately.
func (l *lane[T]) halve(ctx context.Context, reqs []request, answers []answer[T]) {
	half := len(reqs) / 2
	if half > 0 {
		l.settle(ctx, reqs[:half], l.askAgain(ctx, reqs[:half]), answers[:half])
	}

	l.settle(ctx, reqs[half:], l.askAgain(ctx, reqs[half:]), answers[half:])
}

// spread gives each request its part of an answer.
func (l *lane[T]) spread(reqs []request, a answer[one[T]], answers []answer[T]) {
	// A request that was refused by itself is, unless the statement for one would have waited.
	shared := len(reqs) > 1 || sqlState(a.err) == codeLockNotAvailable

	for i := range answers {
		answers[i] = answer[T]{sent: a.sent, named: a.named, outcome: a.outcome, err: a.err, shared: shared}
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
	p := l.statement(reqs)

	return ask(ctx, l.store, p.text, p.args, l.kind.scanOne())
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

	row, granted := any(a.rows[0]).(Row)
	if attempt, ok := any(a.rows[0]).(attempted); ok {
		row, granted = attempt.row, attempt.granted
	}

	if granted {
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
	acquireColumns  = arrayColumns{"lock_id", "ttl", "owner"}
	claimColumns    = arrayColumns{"lock_id", "ttl", "mark", "signature", "owner"}
	refreshColumns  = arrayColumns{"lock_id", "ttl", "generation", "owner"}
	releaseColumns  = arrayColumns{"lock_id", "generation"}
	confirmColumns  = arrayColumns{"lock_id", "owner"}
	giveBackColumns = arrayColumns{"lock_id", "owners"}
	renewColumns    = arrayColumns{"lock_id", "generation", "ttl"}
	heldColumns     = arrayColumns{"lock_id", "generation"}
	getColumns      = arrayColumns{"lock_id"}

	refreshDatedColumns = arrayColumns{"lock_id", "ttl", "generation", "seen", "owner"}
	releaseDatedColumns = arrayColumns{"lock_id", "generation", "hold", "seen"}
)

// shaped leaves out, for a table of three columns, what needs the others. It stands last.
func (c arrayColumns) shaped(full bool) arrayColumns {
	for !full && (c[len(c)-1] == "owner" || c[len(c)-1] == "seen") {
		c = c[:len(c)-1]
	}

	return c
}

// in writes the parameters and their names into a statement. Hidden in a subquery, an
// array can't tempt the planner to plan for its length, which takes as long as the
// statement itself, time and again. The ids are of the type that the table compares, so
// that they are looked up in its index.
func (c arrayColumns) in(text string, full bool, idKind string) string {
	c = c.shaped(full)
	params := make([]string, len(c))

	for i, name := range c {
		kind := "{text}[]"

		switch name {
		case "owner", "owners":
		case "lock_id":
			kind = idKind + "[]"
		default:
			kind = "bigint[]"
		}

		params[i] = "pg_catalog.unnest((SELECT $" + strconv.Itoa(i+1) + "::" + kind + "))"
	}

	return strings.NewReplacer("{requests}", "ROWS FROM ("+strings.Join(params, ", ")+")", "{columns}", strings.Join(c, ", ")).Replace(text)
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
		case "owners":
			args[i] = valuesOf(reqs, func(r request) string { return r.owners })
		case "ttl":
			args[i] = valuesOf(reqs, func(r request) int64 { return r.ttl })
		case "hold":
			args[i] = valuesOf(reqs, func(r request) int64 { return r.hold })
		case "seen":
			args[i] = valuesOf(reqs, func(r request) int64 { return r.seen })
		case "mark":
			args[i] = valuesOf(reqs, func(r request) int64 { return r.mark })
		case "signature":
			args[i] = valuesOf(reqs, func(r request) int64 { return r.signature })
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
