package traffic

import (
	"fmt"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
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
	var n int
	if _, err := fmt.Sscanf(client, "c%d.", &n); err == nil && n%2 == 1 {
		return r.Fewer
	}

	return r.Most
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
	for _, all := range [][]Recipe{Semaphores, RWLocks, Elections} {
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
