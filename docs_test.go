package pglocker_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
)

// codeBlocks returns a document's code in a language, in order.
func codeBlocks(t *testing.T, document, language string) []string {
	t.Helper()

	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(read(t, document), -1) {
		blocks = append(blocks, m[1])
	}

	if len(blocks) == 0 {
		t.Fatalf("%s has no code in %s", document, language)
	}

	return blocks
}

// TestDocsLog: docs/operations.md has each message of the log, or its beginning.
func TestDocsLog(t *testing.T) {
	t.Parallel()

	files, err := filepath.Glob("*.go")
	contract.Must(t, err)

	inner, err := filepath.Glob("internal/*/*.go")
	contract.Must(t, err)

	var (
		page     = strings.Join(strings.Fields(read(t, "docs/operations.md")), " ")
		logged   = regexp.MustCompile(`\.(?:Warn|Info|Error|Log|LogAttrs)\(.*?"pglocker: ([^",]+)`)
		messages int
	)

	for _, file := range append(files, inner...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}

		for _, message := range logged.FindAllStringSubmatch(read(t, file), -1) {
			if messages++; !strings.Contains(page, "`"+message[1]) {
				t.Errorf("%s: docs/operations.md doesn't have %q", file, message[1])
			}
		}
	}

	if messages < 15 {
		t.Errorf("%d messages were found", messages)
	}
}

// TestDocsFragments: the Go code of the recipes' pages compiles. Three dots stand for what a program does there.
func TestDocsFragments(t *testing.T) {
	t.Parallel()

	const taken = "ctx context.Context, db *sql.DB, cfg *pglocker.Config, locker *pglocker.Locker, " +
		"election *pglocker.Election, ttl, interval time.Duration, at, since time.Time, status "

	var (
		functions strings.Builder
		declared  = regexp.MustCompile(`(?m)^(?:(\w+), )?(err) :=`)
		dots      = strings.NewReplacer("\n...\n", "\nif err != nil {\n\treturn err\n}\n", "{ ... }", "{ _, _ = event, err }")
	)

	for _, page := range []string{"care", "election", "history", "lockall", "rwlock", "semaphore"} {
		status := "pglocker.LockStatus"
		if page == "election" {
			status = "board"
		}

		for n, block := range codeBlocks(t, filepath.Join("docs", page+".md"), "go") {
			fmt.Fprintf(&functions, "\nfunc %s%d(%s%s) error {\n%s\n", page, n, taken, status, dots.Replace(block))

			for _, names := range declared.FindAllStringSubmatch(block, -1) {
				for _, name := range names[1:] {
					if name != "" {
						fmt.Fprintf(&functions, "\t_ = %s\n", name)
					}
				}
			}

			functions.WriteString("\n\treturn nil\n}\n")
		}
	}

	goCommand(t, "run", "main.go", `package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/ismurov/pglocker"
)

type board struct{}

func (board) Set(...any) {}

var (
	call, cleanUp, report = (func(context.Context) error)(nil), (func(context.Context) error)(nil), (func(context.Context) error)(nil)

	schedule func(context.Context, int64) error
	transfer func(ctx context.Context, from, to int) error

	_ = fmt.Sprint
)

func main() {}
`+functions.String())
}

// TestDocsSQL: the SQL of docs/sql.md does what the page says.
func TestDocsSQL(t *testing.T) {
	t.Parallel()

	db := contract.Open(t, "pgx", contract.NewDatabase(t))
	contract.MakeTable(t, db, "")
	contract.Exec(t, db, "CREATE TABLE reports (at timestamptz, token bigint)")

	blocks := codeBlocks(t, "docs/sql.md", "sql")
	psql, trigger := blocks[0], blocks[1]

	acquire, rest, _ := strings.Cut(psql, "\n")

	var (
		acquired bool
		token    int64
	)

	call := strings.Replace(acquire[:strings.Index(acquire, ";")], "SELECT *", "SELECT acquired, token", 1)
	if err := db.QueryRowContext(t.Context(), call).Scan(&acquired, &token); err != nil || !acquired {
		t.Fatalf("%s: %t, %v", acquire, acquired, err)
	}

	contract.Exec(t, db, strings.ReplaceAll(rest, "'report', 2", fmt.Sprint("'report', ", token)))

	if n := contract.Query[int](t, db, "SELECT count(*) FROM reports"); n != 1 {
		t.Errorf("%d reports were written, want 1", n)
	}

	if contract.Query[bool](t, db, "SELECT expires_at > clock_timestamp() FROM pglocker.lock_statuses WHERE lock_id = 'report'") {
		t.Error("the lock is held")
	}

	contract.Exec(t, db, trigger)

	insert := func(token int64) error {
		_, err := db.ExecContext(t.Context(), "INSERT INTO reports VALUES (now(), $1)", token)

		return err
	}

	if err := insert(token); err == nil || !strings.Contains(err.Error(), "PL001") {
		t.Errorf("a write after the release: %v, want PL001", err)
	}

	locker := contract.WatchedLocker(t, db, nil)

	lock, err := locker.TryLock(t.Context(), "report", time.Minute)
	contract.Must(t, err)
	contract.Must(t, insert(lock.Token()))
	contract.Must(t, lock.Unlock(t.Context()))
}

// TestDocsLanguages: what docs/sql.md has in other languages is right for their own parsers, where these are
// installed. It takes and releases a lock where a driver is installed, too.
func TestDocsLanguages(t *testing.T) {
	t.Parallel()

	for language, test := range map[string]struct {
		file, dsn            string
		parser, driver, runs []string
	}{
		"python": {
			"lock.py", "dsn",
			[]string{"python3", "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"},
			[]string{"/usr/bin/python3", "-c", "import psycopg"},
			[]string{"/usr/bin/python3"},
		},
		"js": {file: "lock.mjs", dsn: "globalThis.dsn", parser: []string{"node", "--check"}},
		"ruby": {
			"lock.rb", "DSN",
			[]string{"ruby", "-c"},
			[]string{"ruby", "-r", "pg", "-e", ""},
			[]string{"ruby"},
		},
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()

			url := contract.NewDatabase(t)
			code := strings.Join(codeBlocks(t, "docs/sql.md", language), "")
			file := filepath.Join(t.TempDir(), test.file)
			contract.Must(t, os.WriteFile(file, []byte(fmt.Sprintf("%s = %q\n%s", test.dsn, url, code)), 0o600))

			run := func(command ...string) {
				t.Helper()

				if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
					t.Errorf("%q: %v\n%s", command, err, out)
				}
			}

			if _, err := exec.LookPath(test.parser[0]); err != nil {
				t.Skip(err)
			}

			run(append(test.parser, file)...)

			if test.driver == nil || exec.CommandContext(t.Context(), test.driver[0], test.driver[1:]...).Run() != nil {
				t.Log("no driver is installed")

				return
			}

			db := contract.Open(t, "pgx", url)
			contract.MakeTable(t, db, "")
			contract.Exec(t, db, "CREATE TABLE reports (at timestamptz)")
			run(append(test.runs, file)...)

			if !contract.Query[bool](t, db, `SELECT expires_at <= clock_timestamp() AND (SELECT count(*) FROM reports) = 1
				FROM pglocker.lock_statuses WHERE lock_id = 'report'`) {
				t.Error("the lock is held, or there isn't one report")
			}
		})
	}
}
