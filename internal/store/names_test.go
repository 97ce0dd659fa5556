package store_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestNamesFromTheSecondTime: a statement has a name from the second time on, and never one where the user has chosen the
// simple protocol, in which it isn't sent in another way either.
func TestNamesFromTheSecondTime(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		mode pgx.QueryExecMode
		// names are how many the server knows after each call. One of them is sqlByIndex.
		names []int
		// batch: the first statement goes behind sqlByIndex.
		batch bool
	}{
		"names":           {pgx.QueryExecModeCacheStatement, []int{0, 2, 2}, false},
		"simple protocol": {pgx.QueryExecModeSimpleProtocol, []int{0, 0, 0}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			url := newDatabase(t).String()
			must(t, store.Migrate(t.Context(), contract.Open(t, "pgx", url), table, nil))

			cfg, err := pgx.ParseConfig(url)
			must(t, err)

			first := new(firstStatement)
			cfg.DefaultQueryExecMode, cfg.Tracer = c.mode, first

			db := stdlib.OpenDB(*cfg)
			t.Cleanup(func() { _ = db.Close() })
			db.SetMaxOpenConns(1)

			s := store.New(db, table, nil)

			for i, want := range c.names {
				_, err := s.Get(t.Context(), "a")
				must(t, err)

				got := contract.Query[int](t, db, "SELECT count(*) FROM pg_prepared_statements WHERE NOT starts_with(statement, 'SELECT count(*)')")
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
