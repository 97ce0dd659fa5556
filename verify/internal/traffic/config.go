// Package traffic is what a client process does: it takes locks in every way there is, works under
// them, and records all of it.
package traffic

import (
	"fmt"
	"slices"
	"time"
)

// Config is all that a client process is told when it starts.
type Config struct {
	// Name is the name of the client and of this process of it: a killed client comes back under
	// another.
	Name    string
	Driver  string
	URL     string
	History string
	// Resource is the address of the fenced resource outside of the database.
	Resource string
	Seed     uint64
	// Fenced: writers use the guard and the token. The control's writers rely on exclusion alone.
	Fenced bool
	// Think is how long a writer waits at most between reading and writing.
	Think time.Duration
	// Waits: the client only waits for locks that others hold.
	Waits bool
	// Extras is traffic that not every run has.
	Extras Extras
}

// Extras is traffic that not every run has.
type Extras struct {
	// Long: the client also takes locks briefly, with long leases.
	Long bool
	// Bare: the client also takes locks of a table of three columns.
	Bare bool
	// Spared: each client keeps a lock that it mustn't lose, and some that it may.
	Spared bool
	// Recipes: the client also uses recipes, and SQL functions.
	Recipes bool
	// Plain: the client speaks the plain dialect, which has fewer recipes, and no SQL functions. A Locker that isn't
	// told so finds it out.
	Plain bool
}

// Spec is a lock. All leases of a lock have the same TTL, so that the audit can tell
// when one began.
type Spec struct {
	ID  string
	TTL time.Duration
}

// Holds are the locks that workers hold, wait for, and work under.
var Holds = []Spec{
	{"hold-0", 300 * time.Millisecond},
	{"hold-1", 500 * time.Millisecond},
	{"hold-2", time.Second},
	{"hold-3", 1500 * time.Millisecond},
}

// Kept are the locks that workers hold for several times as long as a lease lasts, mostly after a
// wait. So there is always a client that lives on renewals.
var Kept = []Spec{
	{"kept-0", 300 * time.Millisecond},
	{"kept-1", 300 * time.Millisecond},
	{"kept-2", 400 * time.Millisecond},
}

// Leases are the locks of workers that keep a status themselves.
var Leases = []Spec{
	{"lease-0", 400 * time.Millisecond},
	{"lease-1", 900 * time.Millisecond},
}

// Shared is a lock that any client refreshes and releases by the status that was last read. It has
// no holders who believe in anything, and tests compare-and-swap alone.
var Shared = Spec{"shared-0", 300 * time.Millisecond}

const (
	privateLocks      = 24
	plainPrivateLocks = 6
	privateTTL        = 1200 * time.Millisecond

	// MaxTTL is the longest of all TTLs and minimum holds. An unused lock is free after that. It
	// doesn't count the TTLs of clients that only wait, which release before they end.
	MaxTTL = 1500 * time.Millisecond
	maxMin = 200 * time.Millisecond
)

// Contended are the locks that all clients use.
func (x Extras) Contended() []Spec {
	all := slices.Concat(Holds, Kept, Leases, []Spec{Shared, Relay})

	if x.Long {
		all = append(all, longs()...)
	}

	if x.Bare {
		all = append(all, Bare...)
		all = append(all, BareAlls...)
	}

	if x.Recipes {
		all = append(all, Alls...)
		recipes := Elections

		if !x.Plain {
			all = append(all, SQLs...)
			recipes = slices.Concat(Semaphores, RWLocks, recipes)
		}

		if x.Bare {
			recipes = slices.Concat(recipes, BareSemaphores, BareRWLocks)
		}

		for _, recipe := range recipes {
			all = append(all, Spec{recipe.ID(), recipe.TTL})
		}
	}

	return all
}

// MaxTenure is how long a worker keeps a contended lock at most: twice the longest lease.
const MaxTenure = 2 * MaxTTL

// lone is a lock that its client alone uses, for writes in transactions that were begun long before
// their guard. No other client takes it, even if its lease ends meanwhile.
func lone(client string) Spec { return Spec{"lone-" + client, 400 * time.Millisecond} }

func private(client string, n int) Spec {
	return Spec{fmt.Sprintf("private-%s-%d", client, n), privateTTL}
}
