// Weight is a program on lib/pq alone. TestWeight looks at what is linked into it.
package main

import (
	"context"
	"database/sql"
	"log"
	"os"
	"text/template"
	"time"

	_ "github.com/lib/pq"

	"github.com/ismurov/pglocker"
)

func main() {
	ctx := context.Background()

	db, err := sql.Open("postgres", "")
	if err != nil {
		log.Fatal(err)
	}

	locker, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{})
	if err != nil {
		log.Fatal(err)
	}

	// Of what a template may be given, the linker keeps all methods, as in most large programs.
	if err := template.Must(template.New("").Parse("")).Execute(os.Stdout, locker); err != nil {
		log.Fatal(err)
	}

	err = locker.Do(ctx, "report", time.Minute, 20*time.Second, func(ctx context.Context) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()

		if err := pglocker.Guard(ctx, tx); err != nil {
			return err
		}

		return tx.Commit()
	})
	if err != nil {
		log.Fatal(err)
	}
}
