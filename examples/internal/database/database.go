// Package database says which database an example runs on.
package database

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/ismurov/pglocker/pgtesting"
)

// EnvURL is the environment variable that names the database where the command
// line does not.
const EnvURL = "CI_DATABASE_URL"

// URLUsage describes the flag -url of the examples.
const URLUsage = "`URL` of the database, postgres://user:password@host:port/name " +
	"(default $" + EnvURL + ", else a throwaway server is started)"

// Database is a database to run on.
type Database struct {
	// URL is its address, password included.
	URL string
	// Where describes it for people, without the password.
	Where string

	server *pgtesting.Server
}

// Choose returns the database that fromFlag names, else the one that
// $CI_DATABASE_URL names, else one on a throwaway server, which it starts. It
// tells w which it is. The caller closes the Database.
func Choose(ctx context.Context, fromFlag string, w io.Writer) (*Database, error) {
	d := &Database{}

	switch fromEnv := os.Getenv(EnvURL); {
	case fromFlag != "":
		d.URL, d.Where = fromFlag, redacted(fromFlag)+", from -url"
	case fromEnv != "":
		d.URL, d.Where = fromEnv, redacted(fromEnv)+", from $"+EnvURL
	default:
		fmt.Fprintf(w, "No -url and no $%s: starting a throwaway PostgreSQL server.\n", EnvURL)

		server, err := pgtesting.StartServer(ctx, pgtesting.WithProgress(w))
		if err != nil {
			return nil, fmt.Errorf("starting a throwaway server (or name one with -url): %w", err)
		}

		d.server = server
		d.URL = server.URL()
		d.Where = fmt.Sprintf("PostgreSQL %s on 127.0.0.1:%d, gone when this program ends",
			server.Version(), server.Port())
	}

	fmt.Fprintf(w, "Database: %s\n", d.Where)

	return d, nil
}

// Close stops the throwaway server, if there is one, and removes its files.
func (d *Database) Close() error {
	if d.server == nil {
		return nil
	}

	return d.server.Stop()
}

func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "a database" // the text may hold a password
	}

	u.RawQuery = "" // and so may this

	return u.Redacted()
}
