package store_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestNamesFromTheSecondTime: a statement has a name from the second time on, and never one where the user has told pgx so.
// In the modes without names it isn't sent in another way at first. (A first request that was made again on a busy machine
// would have a name, too.)
func TestNamesFromTheSecondTime(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		settings string
		// names are how many the server knows after each call. One of them is sqlByIndex.
		names []int
		// batch: the first statement goes behind sqlByIndex.
		batch bool
	}{
		"names":                {"", []int{0, 2, 2}, false},
		"simple protocol":      {"default_query_exec_mode=simple_protocol", []int{0, 0, 0}, true},
		"exec":                 {"default_query_exec_mode=exec", []int{0, 0, 0}, true},
		"no cache":             {"statement_cache_capacity=0", []int{0, 0, 0}, false},
		"no descriptions":      {"default_query_exec_mode=cache_describe&description_cache_capacity=0", []int{0, 0, 0}, false},
		"descriptions without": {"default_query_exec_mode=describe_exec", []int{0, 0, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			url := newDatabase(t)
			must(t, store.Migrate(t.Context(), contract.Open(t, "pgx", url.String()), table, nil))

			if c.settings != "" {
				url.RawQuery += "&" + c.settings
			}

			cfg, err := pgx.ParseConfig(url.String())
			must(t, err)

			first := new(firstStatement)
			cfg.Tracer = first

			db := stdlib.OpenDB(*cfg)
			t.Cleanup(func() { _ = db.Close() })
			db.SetMaxOpenConns(1)

			s := store.New(db, table, nil)

			for i, want := range c.names {
				_, err := s.Get(t.Context(), "a")
				must(t, err)

				var got int

				must(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_prepared_statements", pgx.QueryExecModeExec).Scan(&got))

				if got != want {
					t.Errorf("after %d calls the server knows %d names, want %d", i+1, got, want)
				}
			}

			if first.batch != c.batch {
				t.Errorf("the first statement went behind settings: %t", first.batch)
			}
		})
	}
}

// firstStatement is a tracer of pgx that tells how the first statement was sent.
type firstStatement struct {
	contract.OnStatement
	some, batch bool
}

func (f *firstStatement) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	f.some = true

	return ctx
}

func (f *firstStatement) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	f.batch = f.batch || !f.some
	f.some = true

	return ctx
}
