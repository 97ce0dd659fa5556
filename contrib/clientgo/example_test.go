package pglockerclientgo_test

import (
	"context"
	"database/sql"
	"log"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/leaderelection"

	"github.com/ismurov/pglocker"
	pglockerclientgo "github.com/ismurov/pglocker/contrib/clientgo"
)

// It works while it leads, and returns when ctx has ended or the lease is lost.
func Example() {
	_ = func(ctx context.Context, db *sql.DB, identity string, work func(context.Context)) error {
		lock, err := pglockerclientgo.New(db, &pglocker.Config{Owner: identity}, "controller")
		if err != nil {
			return err
		}

		leaderelection.RunOrDie(lock.UntilLost(ctx), leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: work,
				OnStoppedLeading: func() { log.Print("not the leader") }, // whether it has led or not
			},
		})

		return nil
	}
}

// TestDocs: the code of docs/kubernetes.md is that of the example, but for how far it is indented.
func TestDocs(t *testing.T) {
	t.Parallel()

	read := func(name string) string {
		text, err := os.ReadFile(name)
		must(t, err)

		return strings.ReplaceAll(string(text), "\t", "")
	}

	code := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(read("../../docs/kubernetes.md"))
	if code == nil || !strings.Contains(read("example_test.go"), code[1]) {
		t.Errorf("docs/kubernetes.md has other code than the example: %q", code)
	}
}
