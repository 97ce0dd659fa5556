package store_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/migrations"
)

var update = flag.Bool("update", false, "write migrations/0002_functions.sql")

// TestFunctionsFile: the file has the functions as MigrateDB makes them, to the byte. Else MigrateDB
// would replace what the file has made, which needs a right.
func TestFunctionsFile(t *testing.T) {
	t.Parallel()

	const name = "0002_functions.sql"

	text, err := migrations.FS.ReadFile(name)
	must(t, err)

	head, functions, _ := strings.Cut(string(text), "\n\n")
	if want := store.FunctionsFile(); "\n"+functions != want {
		if *update {
			must(t, os.WriteFile("../../migrations/"+name, []byte(head+"\n"+want), 0o644))
		}

		t.Errorf("%s differs from what MigrateDB makes: run this test with -update", name)
	}
}
