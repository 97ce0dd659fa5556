package traffic

import (
	"slices"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// Bare are locks in a table of three columns, which shows neither holders nor waiters. No request
// for them asks for a minimum hold: the audit tells a grant from a release by the lease.
var Bare = []Spec{
	{"bare-0", 300 * time.Millisecond},
	{"bare-1", 900 * time.Millisecond},
}

// BareAlls are locks of that table that are taken several at once, and alone, too.
var BareAlls = []Spec{
	{"bare-all-0", 600 * time.Millisecond},
	{"bare-all-1", 600 * time.Millisecond},
	{"bare-all-2", 600 * time.Millisecond},
}

// BareSemaphores and BareRWLocks are recipes of that table.
var (
	BareSemaphores = []Recipe{{Kind: pglocker.KindSemaphore, Name: "bare-sem-0", TTL: 500 * time.Millisecond, Most: 3, Fewer: 2}}
	BareRWLocks    = []Recipe{{Kind: pglocker.KindRWLock, Name: "bare-rw-0", TTL: 600 * time.Millisecond}}
)

// IsBare reports whether a lock, or a row of a recipe, is one of them.
func IsBare(id string) bool {
	if family, _ := Part(id); family != "" {
		return slices.ContainsFunc(slices.Concat(BareSemaphores, BareRWLocks), func(r Recipe) bool { return r.ID() == family })
	}

	return slices.ContainsFunc(slices.Concat(Bare, BareAlls), func(lock Spec) bool { return lock.ID == id })
}

// NameBare gives the grants of these locks the names that the audit has for them: the library told
// their clients none.
func NameBare(h *history.History) {
	for _, op := range h.Operations {
		if !IsBare(op.Lock) {
			continue
		}

		op.Free = false // nor whether a status is that of a free lock

		if op.Kind.Grants() && op.Outcome == history.OK {
			op.Owner = audit.BareOwner(op.Client, op.Token)
		}
	}
}
