package doctor

import (
	"testing"
	"time"

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

// TestYoungLock: a lock of the table isn't waited for, though the role sees that it is no older than usual.
func TestYoungLock(t *testing.T) {
	t.Parallel()

	for _, mode := range []string{"ACCESS EXCLUSIVE", "SHARE"} {
		w := newWard(t)
		w.limits.Blocker = time.Hour
		locker := w.connect(w.url, "BEGIN; LOCK TABLE pglocker.lock_statuses IN "+mode+" MODE")

		report := w.examine(w.url)
		finds(t, mode, report, "table-locked")

		if status, _ := statusOf(t, report, "storage"); status != Skipped {
			t.Errorf("%s: storage: %s", mode, status)
		}

		contract.Must(t, locker.Close(t.Context()))
		finds(t, "it goes on", w.examine(w.url))
	}
}
