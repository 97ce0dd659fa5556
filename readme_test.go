package pglocker_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

// The code of the README is compiled and run, its SQL too.

const readmeURL = "postgres://postgres:postgres@localhost:5432/postgres?sslmode=disable"

// readmeBlocks returns the README's code in a language, in order.
func readmeBlocks(t *testing.T, language string) []string {
	t.Helper()

	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}

	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(text, -1) {
		blocks = append(blocks, string(m[1]))
	}

	if len(blocks) == 0 {
		t.Fatalf("the README has no code in %s", language)
	}

	return blocks
}

// The README has three kinds of Go code.
func isProgram(block string) bool      { return strings.HasPrefix(block, "package main\n") }
func isIntegrations(block string) bool { return strings.HasPrefix(block, "// pgxpool") }
func isFragment(block string) bool     { return !isProgram(block) && !isIntegrations(block) }

// goCommand runs the go command on a file with the given text, as if it belonged
// to this module.
func goCommand(t *testing.T, command, name, text string, env ...string) {
	t.Helper()

	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(t.Context(), "go", command, file)
	cmd.Env = append(os.Environ(), env...)

	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s\nof:\n%s", command, err, out, text)
	}
}

func TestReadmeProgram(t *testing.T) {
	programs := slices.DeleteFunc(readmeBlocks(t, "go"), func(b string) bool { return !isProgram(b) })
	if len(programs) != 1 || !strings.Contains(programs[0], readmeURL) {
		t.Fatalf("not one program:\n%s", programs)
	}

	program := programs[0]

	url := contract.NewDatabase(t) // skips where tests without databases are asked for

	switch server := contract.Server(); {
	case server == nil:
		t.Log("a server is given: the program runs with the URL of a database on it")
	case !relay(t, 5432, server.Port()):
		t.Log("port 5432 of localhost is taken: the program runs with another URL")
	default:
		url = readmeURL
	}

	goCommand(t, "run", "main.go", strings.ReplaceAll(program, readmeURL, url))

	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}

	defer db.Close()

	var (
		generation int64
		held       bool
	)

	err = db.QueryRowContext(t.Context(), `
		SELECT generation, expires_at > clock_timestamp()
		  FROM pglocker.lock_statuses WHERE lock_id = 'report'`).Scan(&generation, &held)
	if err != nil || generation < 3 || held {
		t.Errorf("after the program: generation %d, held %t, error %v", generation, held, err)
	}
}

// relay passes connections to localhost's port on to a port of 127.0.0.1 until
// the test has ended. It is false if the port is taken.
func relay(t *testing.T, port, to int) bool {
	t.Helper()

	var (
		listeners []net.Listener
		open      sync.WaitGroup
	)

	t.Cleanup(func() {
		for _, l := range listeners {
			_ = l.Close()
		}

		open.Wait()
	})

	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(host, fmt.Sprint(port)))

		switch {
		case err == nil:
			listeners = append(listeners, l)
		case host == "127.0.0.1" || errors.Is(err, syscall.EADDRINUSE):
			t.Log(err)

			return false
		default: // a machine without IPv6
		}
	}

	for _, l := range listeners {
		open.Go(func() {
			for {
				client, err := l.Accept()
				if err != nil {
					return
				}

				open.Go(func() {
					defer client.Close()

					server, err := new(net.Dialer).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", to))
					if err != nil {
						return
					}
					defer server.Close()

					open.Go(func() {
						_, _ = io.Copy(server, client)
						_ = server.Close()
					})

					_, _ = io.Copy(client, server)
				})
			}
		})
	}

	return true
}

// TestReadmeFragments makes functions of the README's fragments, with what they
// take for granted, and runs them.
func TestReadmeFragments(t *testing.T) {
	url := contract.NewDatabase(t)

	var functions, calls strings.Builder

	for n, block := range slices.DeleteFunc(readmeBlocks(t, "go"), func(b string) bool { return !isFragment(b) }) {
		fmt.Fprintf(&functions, "\nfunc fragment%d(ctx context.Context, db *sql.DB, locker *pglocker.Locker) error {\n", n)
		fmt.Fprintf(&functions, "\t_, _, _ = ctx, db, locker\n%s}\n", block)
		fmt.Fprintf(&calls, "\tcheck(fragment%d(ctx, db, locker))\n", n)
	}

	ddl := strings.Join(readmeBlocks(t, "sql"), "\n") +
		"CREATE TABLE reports (name TEXT, body TEXT, token BIGINT); INSERT INTO reports VALUES ('nightly', '', 0);"

	goCommand(t, "run", "main.go", `package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
)

var (
	_ = errors.New
	_ = fmt.Sprint
	_ = time.Second
)

func task(ctx context.Context) error { return ctx.Err() }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	ctx := context.Background()

	db, err := sql.Open("pgx", os.Getenv("README_URL"))
	check(err)

	_, err = db.ExecContext(ctx, `+"`"+ddl+"`"+`)
	check(err)

	locker, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{})
	check(err)

`+calls.String()+"}\n"+functions.String(), "README_URL="+url)
}

// TestReadmeIntegrations: what the README says of other libraries is said, line by line, by the
// tests that use them.
func TestReadmeIntegrations(t *testing.T) {
	t.Parallel()

	blocks := slices.DeleteFunc(readmeBlocks(t, "go"), func(b string) bool { return !isIntegrations(b) })
	if len(blocks) != 1 {
		t.Fatalf("there are %d", len(blocks))
	}

	var libraries []string

	for group := range strings.SplitSeq(strings.TrimSpace(blocks[0]), "\n\n") {
		heading, code, _ := strings.Cut(strings.TrimPrefix(group, "// "), "\n")
		lines := strings.Split(code, "\n")

		// A heading is the names of libraries, and may go on with ". Some hint: and its code".
		names, hint, _ := strings.Cut(heading, ". ")
		if _, expression, found := strings.Cut(hint, ": "); found {
			lines = append(lines, expression)
		}

		for name := range strings.SplitSeq(names, ", ") {
			libraries = append(libraries, name)
			source := read(t, filepath.Join("examples", "integrations", name+"_test.go"))

			for _, line := range lines {
				if !strings.Contains(source, line) {
					t.Errorf("the test of %s doesn't have: %s", name, line)
				}
			}
		}
	}

	if want := []string{"pgxpool", "sqlc", "gorm", "sqlx", "bun", "ent"}; !slices.Equal(libraries, want) {
		t.Errorf("it is about %q, not %q", libraries, want)
	}
}

// TestReadmeCommands: CI runs the commands that the README begins with, or verbs of make that do.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()

	makefile, ci := read(t, "Makefile"), read(t, ".ci/run")

	commands := regexp.MustCompile(`(?m)^    make ([a-z-]+)`).FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(commands) != 2 {
		t.Errorf("it has the commands %q", commands)
	}

	for _, command := range commands {
		run := false

		for _, verb := range regexp.MustCompile(`(?m)^make ([a-z-]+)`).FindAllStringSubmatch(ci, -1) {
			_, recipe, _ := strings.Cut(makefile, "\n"+verb[1]+":")
			recipe, _, _ = strings.Cut(recipe, "\n\n")
			run = run || verb[1] == command[1] || strings.Contains(recipe, "$(MAKE) "+command[1]+" ")
		}

		if !run {
			t.Errorf(".ci/run doesn't run make %s", command[1])
		}
	}
}

// TestReadmeBadges: a badge shows a workflow of this repository.
func TestReadmeBadges(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile("README.md")
	contract.Must(t, err)

	badges := regexp.MustCompile(`actions/workflows/([^/)]+)`).FindAllSubmatch(text, -1)
	if len(badges) == 0 {
		t.Error("the README shows no workflow")
	}

	for _, badge := range badges {
		if _, err := os.Stat(filepath.Join(".github/workflows", string(badge[1]))); err != nil {
			t.Error(err)
		}
	}
}

// TestDocumentsNameWhatExists: links to files and to their headings, errors by their names, and
// verbs of make.
func TestDocumentsNameWhatExists(t *testing.T) {
	t.Parallel()

	var documents []string

	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && entry.Name() == ".git" {
			return fs.SkipDir
		}

		if strings.HasSuffix(path, ".md") {
			documents = append(documents, path)
		}

		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	errorNames := read(t, "errors.go")
	verbs := read(t, "Makefile")

	for _, document := range documents {
		text := read(t, document)

		for _, link := range regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}

			path := document
			if link[1] != "" {
				path = filepath.Join(filepath.Dir(document), link[1])
			}

			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %v", document, err)
			} else if link[2] != "" && strings.HasSuffix(path, ".md") && !slices.Contains(anchors(read(t, path)), link[2]) {
				t.Errorf("%s: %s has no heading %s", document, path, link[2])
			}
		}

		for _, name := range regexp.MustCompile("`(?:pglocker\\.)?(Err[A-Z]\\w+)`").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(errorNames, "\n\t"+name[1]+" = ") {
				t.Errorf("%s: there is no %s", document, name[1])
			}
		}

		for _, verb := range regexp.MustCompile("(?m)(?:`|^    )make ([a-z-]+)").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(verbs, "\n"+verb[1]+":") {
				t.Errorf("%s: there is no make %s", document, verb[1])
			}
		}
	}
}

// anchors are the headings of a document as links name them.
func anchors(text string) []string {
	var anchors []string

	for _, heading := range regexp.MustCompile("(?m)^#+ (.*)$").FindAllStringSubmatch(text, -1) {
		kept := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		anchors = append(anchors, "#"+strings.ReplaceAll(kept, " ", "-"))
	}

	return anchors
}

func read(t *testing.T, path string) string {
	t.Helper()

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	return string(text)
}
