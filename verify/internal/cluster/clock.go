package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// Clock is a server's clock, which can be set. The monotonic clock is left alone. The server's
// processes read the offset in a file, each time that they ask for the time.
type Clock struct {
	library, path string
	// ahead is how far it was set ahead of this machine's; furthest is the latest time that
	// it has shown.
	ahead    time.Duration
	furthest time.Time
}

// findFaketime is the path of libfaketime, or "" where it is missing.
func findFaketime() string {
	for _, pattern := range []string{
		"/usr/lib/*/faketime/libfaketimeMT.so.1",
		"/usr/lib*/faketime/libfaketimeMT.so.1",
		"/usr/local/lib/faketime/libfaketimeMT.so.1",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // the patterns are right
			return found[0]
		}
	}

	return ""
}

// NewClock returns a clock whose file is in the folder. It fails with [ErrNoFaketime].
func NewClock(folder string) (*Clock, error) {
	library := findFaketime()
	if library == "" {
		return nil, ErrNoFaketime
	}

	c := &Clock{library: library, path: filepath.Join(folder, "clock")}

	return c, c.set(0)
}

// ServerOptions make a server go by the clock.
func (c *Clock) ServerOptions() []pgtesting.ServerOption {
	return []pgtesting.ServerOption{
		pgtesting.WithEnv("LD_PRELOAD=" + c.library),
		pgtesting.WithEnv("FAKETIME_TIMESTAMP_FILE=" + c.path),
		pgtesting.WithEnv("FAKETIME_NO_CACHE=1"),
		pgtesting.WithEnv("DONT_FAKE_MONOTONIC=1"),
	}
}

func (c *Clock) set(ahead time.Duration) error {
	// By renaming: no process must read half of it.
	temporary := c.path + ".new"
	if err := os.WriteFile(temporary, fmt.Appendf(nil, "%+.6f\n", ahead.Seconds()), 0o644); err != nil {
		return fmt.Errorf("cluster: clock: %w", err)
	}

	c.noteFurthest()

	if err := os.Rename(temporary, c.path); err != nil {
		return fmt.Errorf("cluster: clock: %w", err)
	}

	c.noteFurthest()
	c.ahead = ahead

	return nil
}

func (c *Clock) noteFurthest() {
	if now := time.Now().Add(c.ahead); now.After(c.furthest) {
		c.furthest = now
	}
}

// Behind is how far the clock is behind the latest time that it has shown. Leases may last longer
// by as much.
func (c *Clock) Behind() time.Duration {
	return max(0, c.furthest.Sub(time.Now().Add(c.ahead)))
}

// SetClock sets the server's clock so far ahead of this machine's, and records when.
func (c *Cluster) SetClock(ahead time.Duration) error {
	e := history.Event{Kind: history.Clock, From: history.Now(), Value: int64(ahead)}
	err := c.options.Clock.set(ahead)
	c.Notes.Note(e)

	return err
}
