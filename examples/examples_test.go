//go:build unix

// Package examples_test runs the examples as a person would, and reads what they
// print.
package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/internal/tmpfs"
	"github.com/ismurov/pglocker/pgtesting"
)

const envURL = "CI_DATABASE_URL"

var databases *pgtesting.TestInstance

// programs is a folder with the compiled examples.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pglocker-examples-")
	if err != nil {
		return "", err
	}

	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", dir, "./...").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building the examples: %w\n%s", err, out)
	}

	return dir, err
})

func TestMain(m *testing.M) {
	tmpfs.Use()

	// These tests wait for programs rather than compute.
	_ = flag.Set("test.parallel", "8")

	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv(envURL),
	})
	code := m.Run()
	databases.MustClose()

	if !testing.Short() {
		dir, _ := programs()
		_ = os.RemoveAll(dir)
	}

	os.Exit(code)
}

// program returns the path of a compiled example, which is this test's alone, so
// that its processes can be told from others.
func program(t *testing.T, example string) string {
	t.Helper()

	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(t.TempDir(), example)
	if err := os.Link(filepath.Join(dir, example), path); err != nil {
		t.Fatal(err)
	}

	return path
}

// environment is this process's, with CI_DATABASE_URL set to url or, if that is
// empty, without it.
func environment(url string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envURL+"=") })
	if url != "" {
		env = append(env, envURL+"="+url)
	}

	return env
}

// run runs a program that is to succeed and returns what it printed.
func run(t *testing.T, env []string, program string, args ...string) string {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env

	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(program), err, out)
	}

	return string(out)
}

// wantInOrder fails the test unless all patterns match, each after the one before.
func wantInOrder(t *testing.T, out string, patterns ...string) {
	t.Helper()

	rest := out
	for _, pattern := range patterns {
		at := regexp.MustCompile("(?m)" + pattern).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("no %q (in its place) in:\n%s", pattern, out)
		}

		rest = rest[at[1]:]
	}
}

var printed = map[string][]string{
	"simple-task": {
		`acquired   token 2, for 10s`,
		`refused    a second acquire: .* another 9\.\d+s`,
		`refreshed  token 3,`,
		`refused    a release by the old status: token 2 `,
		`released   free for the next holder, whose token is above 4`,
	},
	"long-task": {
		`asking     for lock "long-task": TTL 2s, renewed every 1s`,
		`granted    token 2, lease until`,
		`working    step 1 of 5, token 2,`,
		`working    step 5 of 5, token 2,`,
		`refused    another task, 3s after the first lease ended: held by \S+#`,
		`released   free for the next holder, whose token is above 3`,
	},
	"custom-migrations": {
		`migrated   table public\.job_locks`,
		`granted    token 2`,
		`refused    a second acquire: held for another 5s|4\.9\d*s`,
		`released   free for the next holder, whose token is above 3`,
	},
}

func TestExamples(t *testing.T) {
	t.Parallel()

	for example, want := range printed {
		t.Run(example, func(t *testing.T) {
			t.Parallel()

			url := databases.NewDatabase(t).String()
			out := run(t, environment(""), program(t, example), "-url", url)
			wantInOrder(t, out, append([]string{`^Database: .*, from -url$`}, want...)...)

			if strings.Contains(out, url) && strings.Contains(url, "postgres:postgres@") {
				t.Errorf("the password is printed:\n%s", out)
			}
		})
	}
}

func TestExampleTakesTheURLFromTheEnvironment(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	out := run(t, environment(url), program(t, "custom-migrations"))
	wantInOrder(t, out, append([]string{`^Database: .*, from \$CI_DATABASE_URL$`}, printed["custom-migrations"]...)...)
}

func TestExampleStartsAServer(t *testing.T) {
	t.Parallel()

	if databases.NewDatabase(t); databases.Server() == nil {
		t.Skip("a server is given; there may be no PostgreSQL here to start another")
	}

	out := run(t, environment(""), program(t, "custom-migrations"))
	wantInOrder(t, out, append([]string{
		`^No -url and no \$CI_DATABASE_URL: starting a throwaway PostgreSQL server\.$`,
		`^Database: PostgreSQL .*, gone when this program ends$`,
	}, printed["custom-migrations"]...)...)
}

func TestExampleFailsWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	databases.NewDatabase(t) // skips where tests without databases are asked for

	cmd := exec.CommandContext(t.Context(), program(t, "long-task"),
		"-url", "postgres://nobody:secret@127.0.0.1:1/none?sslmode=disable&connect_timeout=5")

	out, err := cmd.CombinedOutput()
	if err == nil || strings.Contains(string(out), "secret") {
		t.Fatalf("error %v, output:\n%s", err, out)
	}
}

// demoPrints is what the demo prints, in this order.
var demoPrints = []string{
	`^1\. Three processes compete`, `GRANTED +token 2$`, `releases +token 2,`,
	`KILLED +by SIGKILL, while it holds token`, `GRANTED +token \d+: .'s lease is over`,
	`PAUSED +by SIGSTOP, while it holds token`, `GRANTED +token \d+: .'s lease is over`, `CONTINUED`,
	`FENCED +its write with token \d+ is refused: the resource has seen`, `GRANTED`,
	`^What had to hold$`, `got the lock .* after the kill`, `got the lock .* after the pause`,
	`with its old token \d+ was refused`, `cancelled with ErrLockLost`,
	`^PASSED +10 of 10 held, in`,
}

// TestPictureOfTheDemo: the README shows what this demo prints.
func TestPictureOfTheDemo(t *testing.T) {
	t.Parallel()

	file, err := os.ReadFile("../docs/img/demo.svg")
	if err != nil {
		t.Fatal(err)
	}

	_, body, _ := strings.Cut(string(file), "</style>")
	text := html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, ""))

	t.Log("to make the picture again: go run ./examples/demo -svg docs/img/demo.svg")
	wantInOrder(t, text, append([]string{`^\$ make demo$`}, demoPrints...)...)
}

func TestDemo(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	demo := program(t, "demo")
	begun := time.Now()
	out := run(t, environment(""), demo, "-url", url)

	if took := time.Since(begun); took >= 30*time.Second {
		t.Errorf("it took %s", took)
	}

	wantInOrder(t, out, demoPrints...)

	for line := range strings.Lines(out) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 && !strings.HasPrefix(line, "postgres://") {
			t.Errorf("wider than 80 columns: %s", line)
		}
	}

	if strings.Contains(out, "FAILED") || strings.Contains(out, "\x1b") {
		t.Errorf("it says:\n%s", out)
	}

	wantNothingLeft(t, demo, url, true)
}

// TestDemoCleansUp interrupts the demo in its three scenes, and while a worker is
// paused.
func TestDemoCleansUp(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name string
		at   string // the line that it is interrupted at
		by   syscall.Signal
		// drops: it has the time to drop its schema.
		drops bool
	}{
		{"interrupted at the start", "starts    as process", syscall.SIGINT, true},
		{"interrupted while a worker is dead", "KILLED", syscall.SIGINT, true},
		{"terminated while a worker is paused", "PAUSED", syscall.SIGTERM, true},
		{"killed while a worker is paused", "PAUSED", syscall.SIGKILL, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			url := databases.NewDatabase(t).String()
			demo := program(t, "demo")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()

			cmd := exec.CommandContext(ctx, demo, "-url", url)
			cmd.Env = environment("")
			cmd.WaitDelay = 10 * time.Second // its workers have the standard error, too

			output, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}

			var stderr bytes.Buffer
			cmd.Stderr = &stderr

			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}

			lines := bufio.NewScanner(output)
			for lines.Scan() && !strings.Contains(lines.Text(), test.at) {
				t.Log(lines.Text())
			}

			begun := time.Now()

			if err := cmd.Process.Signal(test.by); err != nil {
				t.Fatal(err)
			}

			_, _ = io.Copy(io.Discard, output)

			if err := cmd.Wait(); err == nil {
				t.Error("it ended with exit code 0")
			}

			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("it took %s to end; it said %q", took, stderr.String())
			}

			wantNothingLeft(t, demo, url, test.drops)
		})
	}
}

// wantNothingLeft fails the test if a process of the program goes on, or, where
// that was to be dropped, a schema of the demo's is there.
func wantNothingLeft(t *testing.T, program, url string, dropped bool) {
	t.Helper()

	// Those that nobody could wait for may need a moment to notice.
	var left string

	for range 50 {
		if left = processes(t, program); left == "" {
			break
		}

		time.Sleep(100 * time.Millisecond)
	}

	if left != "" {
		t.Errorf("processes left:\n%s", left)
	}

	if !dropped {
		return
	}

	var schemas int

	err := databases.Open(t, url).QueryRowContext(t.Context(),
		`SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname LIKE 'pglocker%'`).Scan(&schemas)
	if err != nil || schemas != 0 {
		t.Errorf("%d schemas left (%v)", schemas, err)
	}
}

// processes lists the processes, zombies aside, that run the program.
func processes(t *testing.T, program string) string {
	t.Helper()

	out, err := exec.CommandContext(t.Context(), "ps", "-A", "-ww", "-o", "pid=", "-o", "stat=", "-o", "args=").Output()
	if err != nil {
		t.Skipf("ps, which lists processes, doesn't work here: %v", err)
	}

	var found string

	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[2] == program && !strings.HasPrefix(fields[1], "Z") {
			found += fmt.Sprint(line)
		}
	}

	return found
}
