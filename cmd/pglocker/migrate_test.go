package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/migrations"
)

func TestMigrate(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.env = append(b.env, "PGLOCKER_SCHEMA=odd \"schema\"", "PGLOCKER_TABLE=locks")

	b.fails(exitUnavailable, []string{"there is no table", "pglocker migrate"}, "ls")

	if m := decode[migrated](t, b.ok("migrate", "-o", "json")); m.Schema != `odd "schema"` || m.Table != "locks" || m.History {
		t.Errorf("migrated: %+v", m)
	}

	b.ok("ls")
	b.fails(exitUnavailable, []string{"pglocker migrate --history"}, "history")

	for range 2 { // it can be run again
		if text := b.ok("migrate", "--history"); !strings.HasSuffix(text, "is in place, and its history\n") {
			t.Errorf("it says %q", text)
		}
	}

	b.ok("history")
	b.fails(exitUsage, []string{"--tool needs --print"}, "migrate", "--tool", "goose")
	b.fails(exitUsage, []string{"--distributed"}, "migrate", "--distributed", "--history")
	b.fails(exitUnavailable, []string{"no extension citus"}, "migrate", "--distributed")
	b.fails(exitUsage, []string{"default names"}, "migrate", "--print")
}

func TestMigratePrintPlain(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.env = nil // it needs no database

	files := decode[[]sqlFile](t, b.ok("migrate", "--print", "--history", "-o", "json"))

	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}

	if !slices.Equal(names, []string{"0001_lock_statuses.sql", "0002_functions.sql", "0001_lock_history.sql"}) {
		t.Errorf("files: %q", names)
	}

	text, err := migrations.FS.ReadFile("0001_lock_statuses.sql")
	must(t, err)

	if files[0].Text != string(text) {
		t.Error("the first file isn't that of the library")
	}

	if out := b.ok("migrate", "--print"); !strings.HasPrefix(out, "-- file: 0001_lock_statuses.sql\n"+string(text)) {
		t.Errorf("printed:\n%s", out)
	}

	b.fails(exitUsage, []string{`unknown --tool "flyway"`, "golang-migrate"}, "migrate", "--print", "--tool", "flyway")
	b.fails(exitUsage, []string{"invalid --number"}, "migrate", "--print", "--tool", "goose", "--number", "one")
}

// TestMigratePrintUpAndDown runs what the tools would run.
func TestMigratePrintUpAndDown(t *testing.T) {
	t.Parallel()

	cut := func(t *testing.T, text, at string) (before, after string) {
		t.Helper()

		before, after, found := strings.Cut(text, at)
		if !found {
			t.Fatalf("no %q in:\n%s", at, text)
		}

		return before, after
	}

	for tool, c := range map[string]struct {
		names []string
		parts func(t *testing.T, files map[string]string) (up, down []string) // in the order to run them
	}{
		"goose": {
			[]string{"0007_pglocker_lock_statuses.sql", "0008_pglocker_functions.sql", "0009_pglocker_lock_history.sql"},
			func(t *testing.T, files map[string]string) (up, down []string) {
				for _, name := range []string{"0007_pglocker_lock_statuses.sql", "0008_pglocker_functions.sql", "0009_pglocker_lock_history.sql"} {
					head, rest := cut(t, files[name], "-- +goose Up\n")
					first, second := cut(t, rest, "-- +goose Down\n")

					if head != "" || strings.Count(files[name], "-- +goose StatementBegin\n") != 2 || strings.Count(files[name], "-- +goose StatementEnd\n") != 2 {
						t.Errorf("%s has not the markers of goose:\n%s", name, files[name])
					}

					up, down = append(up, first), append([]string{second}, down...)
				}

				return up, down
			},
		},
		"tern": {
			[]string{"0007_pglocker_lock_statuses.sql", "0008_pglocker_functions.sql", "0009_pglocker_lock_history.sql"},
			func(t *testing.T, files map[string]string) (up, down []string) {
				for _, name := range []string{"0007_pglocker_lock_statuses.sql", "0008_pglocker_functions.sql", "0009_pglocker_lock_history.sql"} {
					if strings.Contains(files[name], "{{") {
						t.Errorf("%s is a template for tern", name)
					}

					first, second := cut(t, files[name], "\n---- create above / drop below ----\n")
					up, down = append(up, first), append([]string{second}, down...)
				}

				return up, down
			},
		},
		"golang-migrate": {
			[]string{
				"0007_pglocker_lock_statuses.down.sql", "0007_pglocker_lock_statuses.up.sql", "0008_pglocker_functions.down.sql",
				"0008_pglocker_functions.up.sql", "0009_pglocker_lock_history.down.sql", "0009_pglocker_lock_history.up.sql",
			},
			func(_ *testing.T, files map[string]string) (up, down []string) {
				for _, name := range []string{"0007_pglocker_lock_statuses", "0008_pglocker_functions", "0009_pglocker_lock_history"} {
					up, down = append(up, files[name+".up.sql"]), append([]string{files[name+".down.sql"]}, down...)
				}

				return up, down
			},
		},
		"atlas": {
			[]string{"0007_pglocker_lock_statuses.sql", "0008_pglocker_functions.sql", "0009_pglocker_lock_history.sql"},
			func(_ *testing.T, files map[string]string) (up, down []string) {
				return []string{
					files["0007_pglocker_lock_statuses.sql"], files["0008_pglocker_functions.sql"],
					files["0009_pglocker_lock_history.sql"],
				}, nil
			},
		},
	} {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()

			b := newBed(t)
			b.exec("DROP SCHEMA pglocker CASCADE")

			dir := t.TempDir()
			args := []string{"migrate", "--print", "--history", "--tool", tool, "--number", "0007", "--dir", dir}
			b.ok(args...)
			b.fails(exitFailed, []string{"is there: nothing was written"}, args...)

			files, names := map[string]string{}, []string{}

			entries, err := os.ReadDir(dir)
			must(t, err)

			for _, e := range entries {
				text, err := os.ReadFile(filepath.Join(dir, e.Name()))
				must(t, err)

				files[e.Name()], names = string(text), append(names, e.Name())
			}

			if !slices.Equal(names, c.names) {
				t.Errorf("files: %q", names)
			}

			up, down := c.parts(t, files)
			for _, text := range up {
				b.exec(text)
			}

			b.hold("a")
			b.ok("history", "a")

			if text := b.run("migrate", "--history").stderr; text != "" {
				t.Errorf("the library finds something to add: %s", text)
			}

			for _, text := range down {
				b.exec(text)
			}

			if len(down) > 0 {
				b.fails(exitUnavailable, []string{"there is no table"}, "ls")
			}
		})
	}
}

// TestMigratePrintNumbers: without --number the files are the next.
func TestMigratePrintNumbers(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	dir := t.TempDir()

	for _, name := range []string{"001_first.sql", "002_second.sql", "010.txt"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}

	if out := b.ok("migrate", "--print", "--tool", "tern", "--dir", dir); out != filepath.Join(dir, "003_pglocker_lock_statuses.sql")+"\n"+
		filepath.Join(dir, "004_pglocker_functions.sql")+"\n" {
		t.Errorf("tern: %s", out)
	}

	files := decode[[]sqlFile](t, b.ok("migrate", "--print", "--tool", "golang-migrate", "-o", "json"))
	if len(files) != 4 || files[0].Name[:2] != "20" || len(strings.Split(files[0].Name, "_")[0]) != 14 || files[0].Name >= files[2].Name {
		t.Errorf("golang-migrate: %+v", files)
	}
}
