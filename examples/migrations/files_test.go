package migrations_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/postgres"
	golangmigrate "github.com/golang-migrate/migrate/v4"
	"github.com/jackc/pgx/v5"
	tern "github.com/jackc/tern/v2/migrate"
	"github.com/pressly/goose/v3"

	"github.com/ismurov/pglocker"
)

const folder = "../../migrations"

// tools run the files of a folder, all that are missing, and the way down, from the last to the first.
var tools = map[string]struct {
	up, down func(t *testing.T, url, dir string)
}{
	"goose": {
		func(t *testing.T, url, dir string) {
			t.Helper()

			_, err := newGoose(t, url, dir).Up(t.Context())
			must(t, err)
		},
		func(t *testing.T, url, dir string) {
			t.Helper()

			_, err := newGoose(t, url, dir).DownTo(t.Context(), 0)
			must(t, err)
		},
	},
	"golang-migrate": {
		func(t *testing.T, url, dir string) {
			t.Helper()

			m := newMigrate(t, url, dir)
			must(t, m.Up())
		},
		func(t *testing.T, url, dir string) {
			t.Helper()

			m := newMigrate(t, url, dir)
			must(t, m.Down())
		},
	},
	"tern": {
		func(t *testing.T, url, dir string) {
			t.Helper()

			m := newTern(t, url, dir)
			must(t, m.Migrate(t.Context()))
		},
		func(t *testing.T, url, dir string) {
			t.Helper()

			m := newTern(t, url, dir)
			must(t, m.MigrateTo(t.Context(), 0))
		},
	},
	"atlas": {atlasUp, atlasDown},
}

func newGoose(t *testing.T, url, dir string) *goose.Provider {
	t.Helper()

	provider, err := goose.NewProvider(goose.DialectPostgres, databases.Open(t, url), os.DirFS(dir))
	must(t, err)

	return provider
}

func newMigrate(t *testing.T, url, dir string) *golangmigrate.Migrate {
	t.Helper()

	m, err := openMigrate(os.DirFS(dir), url)
	must(t, err)
	t.Cleanup(func() { _, _ = m.Close() })

	return m
}

func newTern(t *testing.T, url, dir string) *tern.Migrator {
	t.Helper()

	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })

	m, err := tern.NewMigrator(t.Context(), conn, "public.schema_version")
	must(t, err)
	must(t, m.LoadMigrations(os.DirFS(dir)))

	return m
}

func atlasUp(t *testing.T, url, dir string) {
	t.Helper()

	files, err := migrate.NewLocalDir(dir)
	must(t, err)

	// What `atlas migrate hash` does.
	sum, err := files.Checksum()
	must(t, err)
	must(t, migrate.WriteSumFile(files, sum))

	db := databases.Open(t, url)

	driver, err := postgres.Open(db)
	must(t, err)

	executor, err := migrate.NewExecutor(driver, files, &revisions{db}, migrate.WithAllowDirty(true))
	must(t, err)
	must(t, executor.ExecuteN(t.Context(), 0))
}

// atlasDown runs the way down of golang-migrate, by hand. Atlas has no files for it: its command, which is
// not part of its library, plans it.
func atlasDown(t *testing.T, url, _ string) {
	t.Helper()

	var down []string

	must(t, filepath.WalkDir(filepath.Join(folder, "golang-migrate"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".down.sql") {
			down = append(down, path)
		}

		return err
	}))
	slices.SortFunc(down, func(a, b string) int { return strings.Compare(filepath.Base(b), filepath.Base(a)) })

	db := databases.Open(t, url)

	for _, path := range down {
		text, err := os.ReadFile(path)
		must(t, err)

		_, err = db.ExecContext(t.Context(), string(text))
		must(t, err)
	}

	_, err := db.ExecContext(t.Context(), "DROP TABLE public.revisions")
	must(t, err)
}

// revisions is atlas's table of what was done. The one of its command is not part of its library.
type revisions struct{ db *sql.DB }

func (r *revisions) Ident() *migrate.TableIdent {
	return &migrate.TableIdent{Name: "revisions", Schema: "public"}
}

func (r *revisions) ReadRevisions(ctx context.Context) (all []*migrate.Revision, err error) {
	if _, err := r.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS public.revisions (version TEXT PRIMARY KEY, applied INT, total INT)"); err != nil {
		return nil, err
	}

	rows, err := r.db.QueryContext(ctx, "SELECT version, applied, total FROM public.revisions ORDER BY version")
	if err != nil {
		return nil, err
	}

	defer func() { err = errors.Join(err, rows.Close()) }()

	for rows.Next() {
		one := &migrate.Revision{Type: migrate.RevisionTypeExecute}
		if err := rows.Scan(&one.Version, &one.Applied, &one.Total); err != nil {
			return nil, err
		}

		all = append(all, one)
	}

	return all, rows.Err()
}

func (r *revisions) ReadRevision(ctx context.Context, version string) (*migrate.Revision, error) {
	all, err := r.ReadRevisions(ctx)
	if err != nil {
		return nil, err
	}

	for _, one := range all {
		if one.Version == version {
			return one, nil
		}
	}

	return nil, migrate.ErrRevisionNotExist
}

func (r *revisions) WriteRevision(ctx context.Context, one *migrate.Revision) error {
	_, err := r.db.ExecContext(ctx, `
		INSERT INTO public.revisions VALUES ($1, $2, $3)
		ON CONFLICT (version) DO UPDATE SET applied = excluded.applied, total = excluded.total`, one.Version, one.Applied, one.Total)

	return err
}

func (r *revisions) DeleteRevision(ctx context.Context, version string) error {
	_, err := r.db.ExecContext(ctx, "DELETE FROM public.revisions WHERE version = $1", version)

	return err
}

// TestFilesOfTools: what each tool makes of its files, up, down and up again, is what MigrateDB and
// MigrateHistory make.
func TestFilesOfTools(t *testing.T) {
	t.Parallel()

	library := databases.Open(t, databases.NewDatabase(t).String())
	must(t, pglocker.MigrateDB(t.Context(), library, &pglocker.Config{}))

	table := describe(t, library)

	must(t, pglocker.MigrateHistory(t.Context(), library, &pglocker.Config{}))

	history := describe(t, library)
	schema := table[slices.IndexFunc(table, func(line string) bool { return strings.HasPrefix(line, "schema ") }):][:1]

	if len(schema) != 1 || len(table) < 15 || len(history) < len(table)+15 {
		t.Fatalf("%d lines for the table, %d with the history", len(table), len(history))
	}

	for name, tool := range tools {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			url := databases.NewDatabase(t).String()
			db := databases.Open(t, url)
			dir := t.TempDir()

			must(t, os.CopyFS(dir, os.DirFS(filepath.Join(folder, name)))) // tools pass over the folder history

			is := func(want []string, step string) {
				t.Helper()

				if got := describe(t, db); !slices.Equal(got, want) {
					t.Fatalf("%s: too much:\n%s\ntoo little:\n%s", step, without(got, want), without(want, got))
				}
			}

			tool.up(t, url, dir)
			is(table, "up")

			pending, err := pglocker.PendingMigrations(t.Context(), db, &pglocker.Config{})
			must(t, err)

			if len(pending) != 0 {
				t.Errorf("MigrateDB would run %q", pending)
			}

			// The history is a later migration.
			must(t, os.CopyFS(dir, os.DirFS(filepath.Join(folder, name, "history"))))
			tool.up(t, url, dir)
			is(history, "up, with the history")

			tool.down(t, url, dir)
			is(schema, "down")

			tool.up(t, url, dir)
			is(history, "up again")
		})
	}
}

// without returns the lines that others don't have.
func without(lines, others []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(others, line) }), "\n")
}

// TestFilesAreTheCommands: the files are what `pglocker migrate --print` prints.
func TestFilesAreTheCommands(t *testing.T) {
	t.Parallel()

	printed := t.TempDir()

	if out, err := exec.CommandContext(t.Context(), "../../.ci/migrations", printed).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	want, got := texts(t, printed), texts(t, folder)

	for name := range got {
		if tool, _, _ := strings.Cut(name, "/"); tools[tool].up == nil {
			delete(got, name) // the library's own
		}
	}

	if len(want) == 0 {
		t.Fatal("no files")
	}

	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s isn't what the command prints: run make migrations", name)
		}

		delete(got, name)
	}

	for name := range got {
		t.Errorf("the command doesn't print %s: run make migrations", name)
	}
}

// texts are the files under a folder, by their paths.
func texts(t *testing.T, dir string) map[string]string {
	t.Helper()

	all := map[string]string{}

	must(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}

		text, err := os.ReadFile(filepath.Join(dir, path))
		all[path] = string(text)

		return err
	}))

	return all
}
