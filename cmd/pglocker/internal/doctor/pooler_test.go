package doctor

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker/internal/contract"
)

// TestPoolers: the mode of a pooler is found out, also while it has other clients, and so is what it costs.
func TestPoolers(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		mode, seen string
		want       []string
	}{
		{"session", "through a pooler in session mode", nil},
		{"transaction", "through a pooler in transaction mode", []string{"not-notified"}},
		{"statement", "refuses a transaction", []string{"no-transactions"}},
	} {
		t.Run(test.mode, func(t *testing.T) {
			t.Parallel()

			w := newWard(t)
			pooled := contract.ThroughPgBouncerIn(t, test.mode, w.url)

			report := w.examine(pooled)
			finds(t, test.mode, report, test.want...)

			if _, seen := statusOf(t, report, "connection"); !strings.Contains(seen, test.seen) {
				t.Errorf("seen: %s", seen)
			}

			if test.mode != "transaction" {
				return
			}

			ctx, cancel := context.WithCancel(t.Context())

			var others sync.WaitGroup

			for range 6 {
				others.Go(func() {
					conn, err := pgx.Connect(ctx, pooled+"&default_query_exec_mode=exec")
					if err != nil {
						return
					}
					defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it has ended

					for err == nil {
						_, err = conn.Exec(ctx, "SELECT 1")
					}
				})
			}

			report = w.examine(pooled)

			cancel()
			others.Wait()
			finds(t, "beside others", report, test.want...)
		})
	}
}

// TestNoNotification: a server whose notifications don't arrive is found.
func TestNoNotification(t *testing.T) {
	t.Parallel()

	w := newWard(t)
	p := newPatient(Config{Connect: mustParse(t, w.url), Schema: "pglocker", Table: "lock_statuses", Limits: w.limits})
	defer p.close()

	// A pooler in transaction mode that another check has not recognized.
	p.plain = mustParse(t, contract.ThroughPgBouncer(t, w.url))
	p.plain.DefaultQueryExecMode = pgx.QueryExecModeExec
	p.pool = sessionPooled

	result := Check{Name: "notifications"}
	contract.Must(t, checkNotifications(t.Context(), p, &result))

	r := new(Report)
	r.add(result)
	finds(t, "no notification", r, "not-notified")
}

func mustParse(t *testing.T, databaseURL string) *pgx.ConnConfig {
	t.Helper()

	config, err := pgx.ParseConfig(databaseURL)
	contract.Must(t, err)

	return config
}
