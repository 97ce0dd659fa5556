package top_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/cmd/pglocker/internal/top"
	"github.com/ismurov/pglocker/pgtesting"
)

var databases *pgtesting.TestInstance

// childURL has the test binary be the program under test, which looks at that database.
const childURL = "TOP_TEST_URL"

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		os.Exit(child(url))
	}

	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		MigrateFunc: func(ctx context.Context, _ *url.URL, db *sql.DB) error {
			return pglocker.MigrateDB(ctx, db, &pglocker.Config{})
		},
	})
	code := m.Run()
	databases.MustClose()
	os.Exit(code)
}

// child shows the view, as the command does.
func child(url string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	db, err := sql.Open("pgx", url)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)

		return 1
	}

	locker, err := pglocker.New(db, &pglocker.Config{Owner: "top", Table: os.Getenv("TOP_TEST_TABLE")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)

		return 1
	}

	var table top.Table = withClock{locker}
	if os.Getenv("TOP_TEST_PANIC") != "" {
		table = panicking{table}
	}

	err = top.Run(ctx, table, top.Options{
		Title: "pglocker.lock_statuses · app @ db-1", Interval: 200 * time.Millisecond, Query: top.Query{Limit: 1000},
	})

	switch {
	case errors.Is(err, context.Canceled):
		return 128 + int(syscall.SIGTERM)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)

		return 1
	}

	return 0
}

// withClock is a Locker on a primary.
type withClock struct{ *pglocker.Locker }

func (w withClock) Clock(ctx context.Context) (time.Time, bool, error) {
	now, err := w.DatabaseTime(ctx)

	return now, false, err
}

// panicking panics at the third look.
type panicking struct{ top.Table }

var looks int

func (p panicking) Locks(ctx context.Context, f pglocker.LocksFilter) iter.Seq2[pglocker.LockStatus, error] {
	if looks++; looks == 3 {
		panic("a panic of the test")
	}

	return p.Table.Locks(ctx, f)
}
