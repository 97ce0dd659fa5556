package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/cluster"
)

// clockFile says how far the clock of a server is off that has [FakeClock]. Its processes
// read it each time that they ask for the time.
const clockFile = "clock"

// FakeClock returns what makes a server's clock one that can be set, by a file in the
// folder; the monotonic clock is left alone. ok is false where libfaketime is missing.
func FakeClock(folder string) (options []pgtesting.ServerOption, ok bool, err error) {
	for _, pattern := range []string{
		"/usr/lib/*/faketime/libfaketimeMT.so.1",
		"/usr/lib*/faketime/libfaketimeMT.so.1",
		"/usr/local/lib/faketime/libfaketimeMT.so.1",
	} {
		found, _ := filepath.Glob(pattern) // the patterns are right
		if len(found) == 0 {
			continue
		}

		path := filepath.Join(folder, clockFile)

		return []pgtesting.ServerOption{
			pgtesting.WithEnv("LD_PRELOAD=" + found[0]),
			pgtesting.WithEnv("FAKETIME_TIMESTAMP_FILE=" + path),
			pgtesting.WithEnv("FAKETIME_NO_CACHE=1"),
			pgtesting.WithEnv("DONT_FAKE_MONOTONIC=1"),
		}, true, setClock(folder, 0)
	}

	return nil, false, nil
}

func setClock(folder string, off time.Duration) error {
	// By renaming: nobody must read half of it.
	temporary := filepath.Join(folder, clockFile+".new")
	if err := os.WriteFile(temporary, fmt.Appendf(nil, "%+.6f\n", off.Seconds()), 0o644); err != nil {
		return fmt.Errorf("fault: %w", err)
	}

	if err := os.Rename(temporary, filepath.Join(folder, clockFile)); err != nil {
		return fmt.Errorf("fault: %w", err)
	}

	return nil
}

// stepClock sets the server's clock ahead, again and again, by less and by more than leases
// last.
func stepClock(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	folder := filepath.Dir(c.Folder)

	var off time.Duration

	for rest(ctx, between(r, 200, 600)) {
		off += between(r, 50, 3000)
		if err := setClock(folder, off); err != nil {
			return err
		}
	}

	return nil
}
