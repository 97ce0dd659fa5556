package pglocker_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ismurov/pglocker"
)

// FuzzRecipeID: a name gives an id that leads back to it, or an error; no two names give one id.
func FuzzRecipeID(f *testing.F) {
	for _, seed := range []string{"", "a", "a:3", ":", "\x00", "\xff", "pglocker:", strings.Repeat("x", 1024), strings.Repeat("é", 490)} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, name string) {
		for _, kind := range []pglocker.Kind{pglocker.KindSemaphore, pglocker.KindRWLock, pglocker.KindElection} {
			id, err := pglocker.RecipeID(kind, name)

			valid := name != "" && utf8.ValidString(name) && !strings.Contains(name, "\x00") && len(name) <= 1024-16-len("pglocker::")-len(kind)
			if valid != (err == nil) || err != nil && !errors.Is(err, pglocker.ErrInvalidName) {
				t.Fatalf("%s %q: %v", kind, name, err)
			}

			if err != nil {
				continue
			}

			if gotKind, got := pglocker.KindOf(id); gotKind != kind || got != name {
				t.Fatalf("%q leads to %s %q, want %s %q", id, gotKind, got, kind, name)
			}
		}
	})
}

func TestKindOf(t *testing.T) {
	t.Parallel()

	for id, want := range map[string]struct {
		kind pglocker.Kind
		name string
	}{
		"":                      {pglocker.KindLock, ""},
		"a:b":                   {pglocker.KindLock, "a:b"},
		"pglocker":              {pglocker.KindLock, "pglocker"},
		"pglocker:":             {pglocker.KindInternal, ""},
		"pglocker:watermark":    {pglocker.KindInternal, "watermark"},
		"pglocker:lock:a":       {pglocker.KindInternal, "lock:a"},
		"pglocker:election:a:3": {pglocker.KindElection, "a:3"},
		"pglocker:semaphore":    {pglocker.KindSemaphore, ""},
	} {
		if kind, name := pglocker.KindOf(id); kind != want.kind || name != want.name {
			t.Errorf("%q is %s %q, want %s %q", id, kind, name, want.kind, want.name)
		}
	}
}
