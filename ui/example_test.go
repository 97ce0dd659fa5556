package ui_test

import (
	"context"
	"database/sql"
	"log"
	"net/http"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/ui"
)

// isOnCall is the program's own check of who sends a request.
func isOnCall(*http.Request) bool { return true }

func userOf(*http.Request) string { return "alice" }

// A program mounts the page beside its own pages. Those who are on call may release locks by force.
func Example() {
	db, err := sql.Open("pgx", "postgres:///app")
	if err != nil {
		log.Fatal(err)
	}

	locker, err := pglocker.New(db, &pglocker.Config{})
	if err != nil {
		log.Fatal(err)
	}

	page, err := ui.New(locker, ui.Options{
		AllowRelease: true,
		Authorize:    func(r *http.Request, _ ui.Action) bool { return isOnCall(r) },
		User:         userOf,
	})
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("/admin/locks/", http.StripPrefix("/admin/locks", page))

	server := &http.Server{Addr: "127.0.0.1:8080", Handler: mux}

	// ... until the program ends:
	ctx := context.Background()
	_ = server.Shutdown(ctx) // ends the streams too
	page.Close()
	_ = locker.Close(ctx)
}
