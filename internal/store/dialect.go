package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// Dialect is which SQL a Store speaks.
type Dialect int

const (
	// DialectByServer is DialectFull, or DialectPlain from when the server refuses that.
	DialectByServer Dialect = iota
	// DialectFull is PostgreSQL's.
	DialectFull
	// DialectPlain is what relatives of PostgreSQL take, see plainVerbs. It has no marks and no notifications,
	// so waiters poll, and none of slots and pruning.
	DialectPlain
)

// ErrUnsupportedServer: the dialect that the server takes lacks something.
var ErrUnsupportedServer = errors.New("pglocker: unsupported by the server")

// Speak sets the dialect. It is called before anything else.
func (s *Store) Speak(dialect Dialect) { s.shape.speaks = dialect }

// plainForms are the forms of the plain dialect, the best first.
func plainForms(f form) (forms []form) {
	f.plain = true

	for lacks := range 8 {
		next := f
		next.waits, next.weak = lacks&1 > 0, lacks&2 > 0

		if lacks&4 > 0 {
			next.floor = false
		}

		if !slices.Contains(forms, next) {
			forms = append(forms, next)
		}
	}

	return forms
}

// chooseDialect returns the form in which the server takes statements, for a table of that form. An ordinary
// server isn't asked: the first look takes the full dialect. If the server then refuses a statement for what
// it is, the shape is looked up again, and each form is tried.
func (s *Store) chooseDialect(ctx context.Context, f form, first bool) (form, error) {
	if s.shape.speaks == DialectFull || s.shape.speaks == DialectByServer && first {
		return f, nil
	}

	var refusal error

	s.shape.probed.Store(true)

	if s.shape.speaks == DialectByServer {
		refusal = s.takes(ctx, f)

		switch {
		case refusal == nil || !refusesForGood(refusal):
			return f, refusal
		case !lacksFeature(refusal): // a privilege is lacking, say, and the next request says so
			return f, nil
		}
	}

	for _, plain := range plainForms(f) {
		err := s.takes(ctx, plain)
		if err == nil {
			s.sayPlain(ctx, f, plain, refusal)

			return plain, nil
		}

		if !refusesForGood(err) {
			return f, err
		}
	}

	return f, nil // what keeps it from both is said by the next request
}

// probedShape is [Store.shapeOf] for rare calls that the full dialect would leave half done, or that don't
// repeat what was refused.
func (s *Store) probedShape(ctx context.Context) (*shape, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil || s.shape.speaks != DialectByServer || s.shape.probed.Load() {
		return sh, err
	}

	s.shape.found.Store(nil)

	return s.shapeOf(ctx)
}

// Dialect returns the dialect that is spoken. If no statement was refused yet, it asks the server.
func (s *Store) Dialect(ctx context.Context) (Dialect, error) {
	sh, err := s.probedShape(ctx)
	if err != nil {
		return 0, s.explain(err)
	}

	if sh.plain {
		return DialectPlain, nil
	}

	return DialectFull, nil
}

// takes sends the statements of a form that grant a lock, for an id that no lock has. It returns an error if
// the server doesn't take them.
func (s *Store) takes(ctx context.Context, f form) error {
	given := acquire.given
	t := render(s.table, f).of(&acquire)
	nobody := []request{{shape: &shape{form: f}, owner: "nobody", ttl: 1}}

	many := given.ofMany(nobody, f.full)
	if f.plain {
		many = given.ofOne(&nobody[0], f.full)
	}

	discard := func(scanner) (struct{}, error) { return struct{}{}, nil }

	_, err := read(ctx, s, t.one, given.ofOne(&nobody[0], f.full), discard)
	if err == nil {
		_, err = read(ctx, s, t.many, many, discard)
	}

	return err
}

// refusesForGood reports whether the server has refused a statement for what it is.
func refusesForGood(err error) bool {
	return sqlState(err) != "" && !errors.Is(err, ErrUnknownOutcome) && !ofTheMoment(err)
}

// lacksFeature reports whether the server has refused a statement because it lacks something.
func lacksFeature(err error) bool {
	return hasState(err, codeFeatureNotSupported, codeUndefinedFunction, codeUndefinedColumn, codeSyntaxError, codeUndefinedObject) &&
		!errors.Is(err, ErrUnknownOutcome) && !elsewhere(err) && !stalePlan(err)
}

// sayPlain tells the log, once, what is lost.
func (s *Store) sayPlain(ctx context.Context, full, plain form, refusal error) {
	if s.shape.plainSaid.Swap(true) {
		return
	}

	attrs := []slog.Attr{
		slog.String("table", s.table.String()),
		slog.Bool("tokens_survive_lossy_failovers", plain.floor),
		slog.Bool("passes_over_locked_rows", !plain.waits),
		slog.Bool("commits_made_durable", !plain.weak),
	}
	if refusal != nil {
		attrs = append(attrs, slog.String("refused", refusal.Error()))
	}

	level := slog.LevelInfo
	if full.floor && !plain.floor || plain.weak {
		level = slog.LevelWarn
	}

	s.log.LogAttrs(ctx, level, "pglocker: locks use the plain dialect, without notifications, semaphores and pruning", attrs...)
}

// isPlain reports whether the Store speaks the plain dialect, as far as is known.
func (s *Store) isPlain() bool {
	last := s.shape.last.Load()

	return s.shape.speaks == DialectPlain || last != nil && last.plain
}

// Notifies reports whether waiters leave marks, by which releases notify, as far as is known.
func (s *Store) Notifies() bool { return s.Full() && !s.isPlain() }

// unsupported is the error of what the dialect lacks.
func (s *Store) unsupported(what string) error {
	return fmt.Errorf("%w: %s, in the plain dialect of %s", ErrUnsupportedServer, what, s.table)
}

func (s *Store) withoutSlots() error {
	return s.unsupported("there are no semaphores and no read-write locks")
}

// plainStatements replaces the statements that are others in the plain dialect.
func (w writer) plainStatements(st *statements) {
	st.of = w.written(w.plainVerb)
	st.guard = sync.OnceValue(func() string { return w.one(nil, sqlPlainGuard) })

	// No node has a row that is found where nothing is, so the node that plans it answers.
	st.clock = sync.OnceValue(func() string { return w.one(nil, onPrimary(`SELECT {iso}{now}{/iso} AS now`)) })

	if w.full {
		st.unwantedLast = sync.OnceValue(func() string { return w.plainly(plainUnwantedLast, sqlPlain, "c.durable") })
	}
}

// plainVerb writes the texts of a verb, if the dialect has it.
func (w writer) plainVerb(v *verb) (t texts) {
	p, ok := plainVerbs[v]
	if !ok {
		return t
	}

	if p.text == "" {
		t.one, t.many = w.plainly(p, sqlPlain, "c.durable"), w.plainly(p, sqlPlainShy, "1::bigint")
		if w.waits {
			t.many = w.plainly(p, sqlPlain, "1::bigint")
		} else {
			t.together = w.together(p)
		}
	} else {
		t = texts{one: w.plainly(p, p.text, "NULL::{text}"), many: w.plainly(p, p.text, "1::bigint")}
	}

	switch v {
	case &create:
		t.many = w.plainly(p, p.text, "l.lock_id")
	case &renew:
		t.one = t.many
	}

	return t
}

// plainly writes a text of the plain dialect. tag is the column behind those of the request.
func (w writer) plainly(p plainVerb, text, tag string) string {
	return w.write(w.filled(p, text, sqlPlainFormer, tag), "c.now", "c.floor", p.given.inOne)
}

// together writes sqlPlainTogether.
func (w writer) together(p plainVerb) string {
	p.set = strings.ReplaceAll(p.set, "c.until", "r.until")

	return w.many(p.given, w.filled(p, sqlPlainTogether, "l.pglocker_former", "l.pglocker_n"))
}

// filled fills in what a verb has.
func (w writer) filled(p plainVerb, text, former, tag string) string {
	returning := p.returning
	if !p.untagged {
		returning += ", {tag}"
	}

	text = with(with(text, "{set}", p.set, "{where}", p.where, "{returning}", returning), "{former}", former, "{tag}", tag)
	if p.lock != "" {
		text = with(text, "{lock}", p.lock)
	}

	return with(w.strength(text), "{span}", p.span)
}

// strength leaves settings out where the server has none.
func (w writer) strength(text string) string {
	if w.weak {
		return with(text, "{durable}", "NULL::{text}", "{forced}", "{reason}::{text}")
	}

	return with(text, "{forced}", `pg_catalog.set_config('`+ForcedSetting+`', {reason}, true)`)
}

// arguments are those of the statement for one request.
func (sh *shape) arguments(v *verb, req *request) []any {
	given := v.given
	if sh.plain {
		given = plainVerbs[v].given
	}

	return given.ofOne(req, sh.full)
}

// nameless: statements have no names. In the plain dialect each is planned anew, so none needs sqlByIndex.
func (s *Store) nameless() bool { return s.unnamed.Load() || s.isPlain() }

// atOnce bounds the statements side by side of one caller.
const atOnce = 4

// sideBySide calls do with each number below n, a few at a time, and waits for all.
func sideBySide(n int, do func(i int)) {
	var group sync.WaitGroup

	room := make(chan struct{}, atOnce)

	for i := range n {
		room <- struct{}{}

		group.Go(func() {
			defer func() { <-room }()

			do(i)
		})
	}

	group.Wait()
}
