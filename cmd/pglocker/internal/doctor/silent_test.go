package doctor

import (
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

// TestFirstStatementWaits: a server that takes connections, and doesn't answer the first statement, isn't taken for
// a pooler.
func TestFirstStatementWaits(t *testing.T) {
	t.Parallel()

	w := newWard(t)
	locker := w.connect(w.url, "BEGIN; LOCK TABLE pg_catalog.pg_namespace")

	finds(t, "a server that hangs", w.examine(w.url), "no-answer")
	contract.Must(t, locker.Close(t.Context()))
	finds(t, "it goes on", w.examine(w.url))
}
