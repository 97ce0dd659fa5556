package contract

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// Journal is a handler that keeps what is logged.
type Journal struct {
	mu      sync.Mutex
	entries []Entry
}

// Entry is one line of a log.
type Entry struct {
	Level   slog.Level
	Message string
	Attrs   map[string]slog.Value
}

func (j *Journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *Journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *Journal) WithGroup(string) slog.Handler            { return j }

func (j *Journal) Handle(_ context.Context, r slog.Record) error {
	e := Entry{r.Level, r.Message, make(map[string]slog.Value)}
	r.Attrs(func(a slog.Attr) bool {
		e.Attrs[a.Key] = a.Value

		return true
	})

	j.mu.Lock()
	defer j.mu.Unlock()

	j.entries = append(j.entries, e)

	return nil
}

// Of are the entries of a message that has these words.
func (j *Journal) Of(words string) (found []Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()

	for _, e := range j.entries {
		if strings.Contains(e.Message, words) {
			found = append(found, e)
		}
	}

	return found
}

// One is the only entry of a message that has these words, once it is there.
func (j *Journal) One(t *testing.T, level slog.Level, words string) Entry {
	t.Helper()
	Await(t, words, func() bool { return len(j.Of(words)) > 0 })

	found := j.Of(words)
	if len(found) != 1 || found[0].Level != level {
		t.Fatalf("%s was logged %d times: %+v", words, len(found), found)
	}

	return found[0]
}
