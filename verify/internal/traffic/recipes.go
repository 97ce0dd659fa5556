package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// Recipe is a semaphore, a read-write lock or an election that all clients use. Its leases have one
// TTL, as those of a [Spec].
type Recipe struct {
	Kind pglocker.Kind
	Name string
	TTL  time.Duration
	// Most is the number of a semaphore's permits. Clients with an odd number have Fewer, as while
	// one deployment replaces another.
	Most, Fewer int
}

// ID is the id of the row that the name stands for.
func (r Recipe) ID() string { return pglocker.ReservedPrefix + string(r.Kind) + ":" + r.Name }

// MostOf is the number of permits that a client goes by.
func (r Recipe) MostOf(client string) int {
	if isOdd(client) {
		return r.Fewer
	}

	return r.Most
}

// isOdd reports whether a client has an odd number.
func isOdd(client string) bool {
	var n int
	_, err := fmt.Sscanf(client, "c%d.", &n)

	return err == nil && n%2 == 1
}

// The recipes that all clients use.
var (
	Semaphores = []Recipe{
		{Kind: pglocker.KindSemaphore, Name: "sem-0", TTL: 400 * time.Millisecond, Most: 3, Fewer: 2},
		{Kind: pglocker.KindSemaphore, Name: "sem-1", TTL: time.Second, Most: 2, Fewer: 2},
	}
	RWLocks   = []Recipe{{Kind: pglocker.KindRWLock, Name: "rw-0", TTL: 500 * time.Millisecond}}
	Elections = []Recipe{{Kind: pglocker.KindElection, Name: "election-0", TTL: 600 * time.Millisecond}}
)

// Alls are the locks that are taken several at once, and alone, too.
var Alls = []Spec{
	{"all-0", 600 * time.Millisecond},
	{"all-1", 600 * time.Millisecond},
	{"all-2", 600 * time.Millisecond},
	{"all-3", 600 * time.Millisecond},
}

// SQLs are the locks that are taken by SQL functions, and by Lockers, too.
var SQLs = []Spec{
	{"sql-0", 400 * time.Millisecond},
	{"sql-1", 900 * time.Millisecond},
}

// RecipeOf is the semaphore or read-write lock of a row, by the id of the row that its name stands
// for.
func RecipeOf(family string) (Recipe, bool) {
	for _, all := range [][]Recipe{Semaphores, RWLocks, Elections, BareSemaphores, BareRWLocks} {
		for _, r := range all {
			if r.ID() == family {
				return r, true
			}
		}
	}

	return Recipe{}, false
}

// Part takes the id of a semaphore's or a read-write lock's row apart. family is what its rows have in
// common. It is "" for all other rows, elections included: each is a lock of its own.
func Part(id string) (family, part string) {
	kind, name := pglocker.KindOf(id)
	if kind != pglocker.KindSemaphore && kind != pglocker.KindRWLock {
		return "", ""
	}

	name, part, _ = strings.Cut(name, ":")

	return pglocker.ReservedPrefix + string(kind) + ":" + name, part
}

// The parts of a family that have no holder's lease, and that of the writer. All others are slots.
const (
	GatePart   = "gate"
	WriterPart = "w"
	IntentPart = "intent"
)

// Leased reports whether a row may have a holder's lease.
func Leased(id string) bool {
	if kind, _ := pglocker.KindOf(id); kind == pglocker.KindInternal {
		return false
	}

	family, part := Part(id)

	return family == "" || part != "" && part != GatePart && part != IntentPart
}

// anyOf picks a lock.
func anyOf(locks []Spec) func(*rand.Rand) Spec {
	return func(r *rand.Rand) Spec { return locks[r.IntN(len(locks))] }
}

// allOf is takeAll of these locks.
func allOf(locks []Spec) func(*worker, context.Context, Spec) {
	return func(w *worker, ctx context.Context, _ Spec) { w.takeAll(ctx, locks) }
}

// startRecipes starts the workers that use recipes, and SQL functions.
func (c *client) startRecipes(start starter) {
	const pause = 20 * time.Millisecond

	start((*worker).hold, pause, anyOf(Alls))
	start(allOf(Alls), pause, anyOf(Alls))

	if !c.cfg.Extras.Plain {
		start((*worker).hold, pause, anyOf(SQLs))
		start((*worker).holdBySQL, pause, func(r *rand.Rand) Spec {
			if r.IntN(100) < 50 { // nobody else has it, so that it is there to be renewed
				return Spec{"sql-" + c.cfg.Name, SQLs[0].TTL}
			}

			return anyOf(SQLs)(r)
		})

		c.startFamilies(start, Semaphores, RWLocks)
	}

	for _, r := range Elections {
		e := c.election(r)
		use := func(step func(*worker, context.Context, *pglocker.Election, Recipe), pause time.Duration) {
			start(func(w *worker, ctx context.Context, _ Spec) { step(w, ctx, e, r) }, pause, func(*rand.Rand) Spec { return Spec{} })
		}

		use((*worker).campaign, pause)
		use((*worker).askWhetherLeading, 2*pause)

		if isOdd(c.cfg.Name) { // it is enough that some do
			use((*worker).observe, pause)
		}
	}
}

// startFamilies starts the workers that use semaphores and read-write locks.
func (c *client) startFamilies(start starter, semaphores, rwLocks []Recipe) {
	const pause = 20 * time.Millisecond

	for _, r := range semaphores {
		s := must(c.locker.NewSemaphore(r.Name, r.MostOf(c.cfg.Name)))

		// Permits are handed over where several wait in one client.
		for range 4 {
			start(func(w *worker, ctx context.Context, _ Spec) { w.takePermits(ctx, s, r) }, pause, func(*rand.Rand) Spec { return Spec{} })
		}
	}

	for _, r := range rwLocks {
		l := must(c.locker.NewRWLock(r.Name))

		for range 2 {
			start(func(w *worker, ctx context.Context, _ Spec) { w.readOrWrite(ctx, l, r) }, pause, func(*rand.Rand) Spec { return Spec{} })
		}
	}
}

// must is for recipes of which all arguments are constants.
func must[R any](recipe R, err error) R {
	if err != nil {
		panic(err)
	}

	return recipe
}

// NameGrants gives grants of recipes the names and times that the audit has for them, and the rows,
// where their clients weren't told of these.
func NameGrants(h *history.History, all []*audit.Transition) {
	type grant struct {
		client, lock string
		token        int64
	}

	made := make(map[grant]*audit.Transition)

	for _, t := range all {
		if !t.Grants() || !Leased(t.Lock) {
			continue
		}

		client, _, _ := strings.Cut(t.New.Owner, "#")
		made[grant{client, t.Lock, t.New.Generation}] = t

		if family, _ := Part(t.Lock); family != "" {
			made[grant{client, family, t.New.Generation}] = t
		}
	}

	rename := func(e *history.Event, token int64) {
		if t := made[grant{e.Client, e.Lock, token}]; t != nil && e.Family != "" {
			e.Lock = t.Lock
		}
	}

	for _, op := range h.Operations {
		rename(&op.Event, max(op.Token, op.Generation))

		if !op.Kind.Grants() || op.Outcome != history.OK || op.Owner != "" && op.Acquired != 0 || IsBare(op.Lock) {
			continue
		}

		if t := made[grant{op.Client, op.Lock, op.Token}]; t != nil {
			op.Owner, op.Acquired = t.New.Owner, t.New.Acquired
		}
	}

	for i := range h.Notes {
		rename(&h.Notes[i], h.Notes[i].Token)
	}
}
