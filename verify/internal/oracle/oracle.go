// Package oracle judges what a run has recorded, promise by promise. docs/guarantees.md numbers the
// promises. Each oracle says for which promises it stands.
package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// Name is an oracle's.
type Name string

// The oracles. The issue tracker and the documentation call them by these names.
const (
	Linearizability Name = "O1"
	Beliefs         Name = "O2"
	Tokens          Name = "O3"
	Fencing         Name = "O4"
	Audit           Name = "O5"
	Healing         Name = "O6"
	Bearing         Name = "O7"
	Recipes         Name = "O8"
)

// Names lists them in their order.
func Names() []Name {
	return []Name{Linearizability, Beliefs, Tokens, Fencing, Audit, Healing, Bearing, Recipes}
}

// Violation is a broken promise, and the part of the history that shows it.
type Violation struct {
	Oracle   Name
	Lock     string
	What     string
	Evidence []string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s %s: %s\n    %s", v.Oracle, v.Lock, v.What, strings.Join(v.Evidence, "\n    "))
}

// Run is all that is known of a run.
type Run struct {
	History *history.History
	// Audit is in the order of its numbers.
	Audit []*audit.Transition
	// Writes are those to the counters in the database, in the order in which they took
	// effect.
	Writes []Write
	// WallOffset is what makes [history.Now] the database's clock, in nanoseconds.
	WallOffset int64
	// Undisturbed: nothing was broken, so no client may have waited in vain.
	Undisturbed bool
	// Pruned: the coordinator has pruned rows meanwhile.
	Pruned bool
	// Extras is what the clients did besides.
	Extras traffic.Extras
	// Bears is nil unless the faults leave the locks alone. It says what may happen then.
	Bears *Bears

	// clock is what settings has found.
	clock []setting
	// names are the requests that name a generation, see naming.
	names map[tenure][]*history.Operation
}

// Write is one write to a fenced resource.
type Write struct {
	Lock         string
	Token, Value int64
	Client       string
}

// flushedWithin is how long a commit may be lost that isn't awaited: three times wal_writer_delay,
// which is 200 ms, and what a busy machine adds.
const flushedWithin = 2 * time.Second

// mayBeUndone reports whether an answer from between two moments may have been undone since, where
// no client awaited its flush: the server crashed within flushedWithin, or another took its place.
func (r *Run) mayBeUndone(from, to int64) bool {
	return slices.ContainsFunc(r.History.Notes, func(e history.Event) bool {
		return isCrash(e) && e.At >= from && (to == history.Never || e.From <= to+int64(flushedWithin))
	})
}

// describe makes evidence of operations, events or transitions.
func describe(things ...any) []string {
	var lines []string

	for _, thing := range things {
		switch t := thing.(type) {
		case *history.Operation:
			if t == nil {
				continue
			}

			end := "never"
			if t.End != history.Never {
				end = fmt.Sprint(t.End)
			}

			lines = append(lines, fmt.Sprintf("%s %s(%s) op %d, %d to %s, names %d: %s, token %d, owner %q, expires %d, remaining %d %s",
				t.Client, t.Kind, t.Lock, t.Op, t.Call, end, t.Generation, t.Outcome, t.Token, t.Owner, t.Expires, t.Remaining, t.Detail))
		case *audit.Transition:
			if t != nil {
				lines = append(lines, t.String())
			}
		default:
			lines = append(lines, fmt.Sprintf("%+v", t))
		}
	}

	return lines
}

// byLock sorts things into one list for each lock, keeping their order.
func byLock[T any](all []T, lock func(T) string) map[string][]T {
	lists := make(map[string][]T)
	for _, one := range all {
		lists[lock(one)] = append(lists[lock(one)], one)
	}

	return lists
}

// sortedKeys makes reports come in the same order each time.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}

	slices.Sort(keys)

	return keys
}

// clientOf is the client that made a grant of this owner: [pglocker.Config.Owner] is the client's
// name.
func clientOf(owner string) string {
	client, _, _ := strings.Cut(owner, "#")

	return client
}
