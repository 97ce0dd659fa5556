package pgtesting_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/url"
	"os"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/pgtesting"
)

var databases *pgtesting.TestInstance

func Example() {
	// TestMain makes one instance for all tests of a package.
	_ = func(m *testing.M) {
		databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
			DriverName:  "pgx",
			DatabaseURL: os.Getenv("CI_DATABASE_URL"),
			MigrateFunc: func(ctx context.Context, _ *url.URL, db *sql.DB) error {
				_, err := db.ExecContext(ctx, `CREATE TABLE songs (title text)`)
				return err
			},
		})
		code := m.Run()
		databases.MustClose()
		os.Exit(code)
	}

	// Each test asks it for a database.
	_ = func(t *testing.T) {
		t.Parallel()
		db := databases.Open(t, databases.NewDatabase(t).String())
		if _, err := db.ExecContext(t.Context(), `INSERT INTO songs VALUES ('one')`); err != nil {
			t.Error(err)
		}
	}
}

func ExampleStartServer() {
	ctx := context.Background()
	server, err := pgtesting.StartServer(ctx, pgtesting.WithSetting("max_connections", "20"))
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := server.Stop(); err != nil {
			log.Print(err)
		}
	}()

	db, err := sql.Open("pgx", server.URL())
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	// What survives a crash?
	if _, err := db.ExecContext(ctx, `CREATE TABLE songs AS SELECT 'one' AS title`); err != nil {
		log.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		log.Fatal(err)
	}
	if err := server.Start(ctx); err != nil {
		log.Fatal(err)
	}

	db2, err := sql.Open("pgx", server.URL())
	if err != nil {
		log.Fatal(err)
	}
	defer db2.Close()
	var title string
	if err := db2.QueryRowContext(ctx, `SELECT title FROM songs`).Scan(&title); err != nil {
		log.Fatal(err)
	}
	fmt.Println(title)
	// (It prints "one". No Output comment: go test would run it under -short too.)
}
