package store

import (
	"strconv"
	"strings"
	"sync"
)

// statements are the SQL texts for one table. Each is written when it is first needed: to write all takes a process
// that is new 4 ms, and one that takes a lock and ends needs few.
type statements struct {
	of func(*verb) *texts
	// grantAll is "" where the table is partitioned, and releaseAll there and where it has no owners.
	grantAll, grantAllOrTell, releaseAll func() string

	unwantedLast, guard, clock func() string
	list                       func() listTexts
	prune                      func() pruneTexts
}

// texts are those of one verb: for one request, and for several. together is for several in the plain dialect.
type texts struct{ one, many, dated, byID, together string }

// verb is what a request does, as SQL.
type verb struct {
	given     parameters
	one, many string

	// dated is for several requests of which some go by more than a generation, or take effect
	// later. Without such, many needs undated alone.
	dated   string
	undated parameters

	// byID is many that takes less of the server where there are [enough] requests, which are [alike]. Its rows say
	// for which lock each is.
	byID string

	// six: only a table of six columns has it.
	six bool
}

// form is what the texts depend on beside the table's name.
type form struct {
	// full: the columns owner, acquired_at and contended_until are there.
	full bool
	// floor: the server tells its timeline.
	floor bool
	// keyed: a unique index, to which a foreign key may refer, has other columns than lock_id.
	// expiryKeyed: it has expires_at.
	keyed, expiryKeyed bool
	// parts: it is partitioned, and a version is one of its part alone.
	parts bool
	// datesOdd: drivers can't read the role's DateStyle. pgx takes times as text when statements
	// have no names, as at their first use and behind a pooler.
	datesOdd bool
	// plain: see [DialectPlain]. There, waits: the server can't pass over locked rows. weak: it can't make a
	// commit more durable.
	plain, waits, weak bool
}

// render returns the statements for a table.
func render(table Table, f form) statements {
	w := newWriter(table, f)
	one := func(has bool, given parameters, text string) func() string {
		if !has {
			text = ""
		}

		return sync.OnceValue(func() string { return w.one(given, text) })
	}

	st := statements{
		of:             w.written(w.verb),
		grantAll:       one(!f.plain && !f.parts, nil, sqlGrantAll),
		grantAllOrTell: one(true, nil, sqlGrantAllOrTell),
		releaseAll:     one(!f.plain && !f.parts && f.full, nil, sqlReleaseAll),
		unwantedLast:   one(f.full, unwanted.given, sqlUnwantedLast),
		guard:          one(true, nil, sqlGuard),
		clock:          one(true, nil, sqlClock),
		list:           sync.OnceValue(w.listing),
		prune:          sync.OnceValue(w.pruning),
	}

	if f.plain {
		w.plainStatements(&st)
	}

	return st
}

// written remembers the texts of each verb.
func (w writer) written(write func(*verb) texts) func(*verb) *texts {
	var of sync.Map

	return func(v *verb) *texts {
		known, ok := of.Load(v)
		if !ok {
			var t texts
			if !v.six || w.full {
				t = write(v)
			}

			known, _ = of.LoadOrStore(v, &t)
		}

		return known.(*texts)
	}
}

// verb writes the texts of a verb.
func (w writer) verb(v *verb) texts {
	given := v.given
	if v.dated != "" {
		given = v.undated
	}

	t := texts{one: w.one(v.given, v.one), many: w.many(given, v.many), dated: w.many(v.given, v.dated)}
	if !w.parts {
		t.byID = w.many(given, v.byID)
	}

	return t
}

// writer fills in what stands in braces.
type writer struct {
	form
	rules, names []string
}

var shared = []string{
	"{row}", sqlRow, "{notify}", sqlNotifyWaiters, "{former}", sqlFormer, "{lazy}", sqlLazy, "{durable}", sqlDurable, "{ahead}", sqlAhead,
}

func newWriter(table Table, f form) writer {
	floor, iso, isoEnd := "0::bigint", "", ""
	if f.floor {
		floor = sqlFloor
	}

	if f.datesOdd {
		// It holds for the transaction, and is evaluated before any column of the row is sent.
		iso, isoEnd = "CASE WHEN pg_catalog.set_config('DateStyle', 'ISO', true) IS NOT NULL THEN ", " END"
	}

	names := []string{"{table}", table.String(), "{channel}", table.Channel()}

	return writer{f, []string{
		"{timeline}", floor,
		"{iso}", iso, "{/iso}", isoEnd,
		"{lock}", rowLock(f.keyed),
		"{lock_expiry}", rowLock(f.expiryKeyed),
		"{modulus}", strconv.FormatInt(MarkModulus, 10),
		"{longest}", strconv.FormatInt(LongestMark.Microseconds(), 10),
	}, names}
}

// ofColumns keeps what stands between {six} and {three}, or {end}, for a table of six columns, and for others what stands
// between {three} and {end}.
func ofColumns(text string, full bool) string {
	var kept strings.Builder

	for {
		before, rest, found := strings.Cut(text, "{six}")
		kept.WriteString(before)

		if !found {
			return kept.String()
		}

		rest, text, _ = strings.Cut(rest, "{end}")

		six, three, _ := strings.Cut(rest, "{three}")
		if full {
			kept.WriteString(six)
		} else {
			kept.WriteString(three)
		}
	}
}

// one writes a statement for one request.
func (w writer) one(given parameters, text string) string {
	return w.write(text, "{now}", "{timeline}", given.inOne)
}

// many writes a statement for several requests.
func (w writer) many(given parameters, text string) string {
	return w.write(text, "c.now", "c.floor", given.inMany)
}

func (w writer) write(text, clock, floor string, fill func(text string, full bool) string) string {
	if text == "" {
		return ""
	}

	text = ofColumns(with(text, shared...), w.full)
	text = strings.ReplaceAll(strings.ReplaceAll(text, "{clock}", clock), "{floor}", floor)

	// The table's name, which may have braces, comes last.
	return with(qualified(with(fill(text, w.full), w.rules...)), w.names...)
}

// rowLock is what a batch locks its rows by. An UPDATE of columns to which a foreign key may refer
// needs FOR UPDATE: with a weaker lock it would wait for the row. Others leave foreign keys be.
func rowLock(keyed bool) string {
	if keyed {
		return "FOR UPDATE"
	}

	return "FOR NO KEY UPDATE"
}
