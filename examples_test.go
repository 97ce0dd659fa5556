package pglocker_test

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestExamples runs the examples and compares what they print to what they say. They have no
// "Output" comments, since by those go test would run them without a database too.
func TestExamples(t *testing.T) {
	url := contract.NewDatabase(t)

	db = contract.Open(t, "pgx", url)
	locker = contract.NewLocker(t, "pgx", url)
	contract.Exec(t, db, "CREATE TABLE reports (body TEXT)")
	contract.Must(t, pglocker.MigrateHistory(t.Context(), db, &pglocker.Config{}))

	var err error

	pool, err = pgxpool.New(t.Context(), url)
	contract.Must(t, err)
	t.Cleanup(pool.Close)

	examples := map[string]func(){
		"ExampleAccess_Downgrade":           ExampleAccess_Downgrade,
		"ExampleElection_Observe":           ExampleElection_Observe,
		"ExampleElection_RequestResign":     ExampleElection_RequestResign,
		"ExampleElection_Run":               ExampleElection_Run,
		"ExampleGuard":                      ExampleGuard,
		"ExampleGuardTx":                    ExampleGuardTx,
		"ExampleHeldError":                  ExampleHeldError,
		"ExampleLock_PreviousHolderCrashed": ExampleLock_PreviousHolderCrashed,
		"ExampleLocker_Do":                  ExampleLocker_Do,
		"ExampleLocker_DoAll":               ExampleLocker_DoAll,
		"ExampleLocker_ForceRelease":        ExampleLocker_ForceRelease,
		"ExampleLocker_History":             ExampleLocker_History,
		"ExampleLocker_HolderAt":            ExampleLocker_HolderAt,
		"ExampleLocker_Lock":                ExampleLocker_Lock,
		"ExampleLocker_Locks":               ExampleLocker_Locks,
		"ExampleLocker_Prune":               ExampleLocker_Prune,
		"ExampleLocker_TryLock":             ExampleLocker_TryLock,
		"ExampleLocker_TryLockAll":          ExampleLocker_TryLockAll,
		"ExampleMigrateDB":                  ExampleMigrateDB,
		"ExampleMigrateHistory":             ExampleMigrateHistory,
		"ExampleNew":                        ExampleNew,
		"ExampleNewPool":                    ExampleNewPool,
		"ExampleObserver":                   ExampleObserver,
		"ExampleRWLock":                     ExampleRWLock,
		"ExampleSemaphore_Do":               ExampleSemaphore_Do,
		"ExampleToken":                      ExampleToken,
		"ExampleWithHealthCheck":            ExampleWithHealthCheck,
		"ExampleWithMinHold":                ExampleWithMinHold,
		"ExampleWithPermits":                ExampleWithPermits,
		"ExampleWithWait":                   ExampleWithWait,
	}

	files, err := filepath.Glob("example_*test.go")
	contract.Must(t, err)

	var source strings.Builder
	for _, file := range files {
		source.WriteString(read(t, file))
	}

	written := regexp.MustCompile(`(?ms)^func (Example\w*)\(\) \{\n(.*?)^\}$`).FindAllStringSubmatch(source.String(), -1)
	if len(written) != len(examples) {
		t.Errorf("%d examples are written, and %d are run", len(written), len(examples))
	}

	for _, w := range written {
		t.Run(w[1], func(t *testing.T) {
			_, want, said := strings.Cut(w[2], "\n\t// It prints:\n")
			if !said || examples[w[1]] == nil {
				t.Fatal("it doesn't say what it prints, or isn't in the list")
			}

			want = regexp.MustCompile(`(?m)^\t// `).ReplaceAllString(want, "")
			if got := printedBy(t, examples[w[1]]); got != want {
				t.Errorf("it prints:\n%sand says:\n%s", got, want)
			}
		})
	}
}

// printedBy returns what a function prints. No other test runs at the same time.
func printedBy(t *testing.T, f func()) string {
	t.Helper()

	reader, writer, err := os.Pipe()
	contract.Must(t, err)

	stdout := os.Stdout
	os.Stdout = writer

	defer func() { os.Stdout = stdout }()

	f() // what it prints fits into the pipe
	contract.Must(t, writer.Close())

	printed, err := io.ReadAll(reader)
	contract.Must(t, err)

	return string(printed)
}
