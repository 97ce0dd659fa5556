package pglocker_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ismurov/pglocker"
)

// FuzzGrantNames: whatever the application calls itself, each request has a name of its
// own, that begins with what it calls itself and leads back to the Locker.
func FuzzGrantNames(f *testing.F) {
	for _, seed := range []string{"worker-7:4711", "", ".", "a.b", "#", "a#b.c", "🔒", "\n", "a\x00", "\xff", strings.Repeat("x", 255), strings.Repeat("x", 256)} {
		f.Add(seed)
	}

	db, err := sql.Open("pgx", "postgres://localhost:1/nowhere") // nothing is sent
	if err != nil {
		f.Fatal(err)
	}

	f.Cleanup(func() { _ = db.Close() })

	f.Fuzz(func(t *testing.T, owner string) {
		valid := len(owner) <= 255 && utf8.ValidString(owner) && !strings.Contains(owner, "\x00")

		locker, err := pglocker.New(db, &pglocker.Config{Owner: owner})
		if valid != (err == nil) || err != nil && !errors.Is(err, pglocker.ErrInvalidOwner) {
			t.Fatalf("owner %q: %v", owner, err)
		}

		if err != nil {
			return
		}

		first, second := locker.GrantName(), locker.GrantName()
		if first == second || !utf8.ValidString(first) || !strings.HasPrefix(first, owner) {
			t.Fatalf("owner %q: %q and %q", owner, first, second)
		}

		if pglocker.NameOf(first) != locker.Name() || pglocker.NameOf(second) != locker.Name() {
			t.Fatalf("%q leads to %q, want %q", first, pglocker.NameOf(first), locker.Name())
		}

		other, err := pglocker.New(db, &pglocker.Config{Owner: owner})
		if err != nil {
			t.Fatal(err)
		}

		if other.GrantName() == first || other.Name() == locker.Name() {
			t.Fatalf("two lockers are called %q", other.Name())
		}
	})
}

// FuzzNameOf: owners are read from the table, where others write too.
func FuzzNameOf(f *testing.F) {
	for _, seed := range []string{"", ".", "a", "a.", ".a", "a#b.c", "a.b#c.d"} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, owner string) {
		name := pglocker.NameOf(owner)

		rest, ok := strings.CutPrefix(owner, name)
		if !ok || strings.Contains(owner, ".") && (strings.Count(rest, ".") != 1 || rest[0] != '.') || !strings.Contains(owner, ".") && name != "" {
			t.Fatalf("%q leads to %q", owner, name)
		}
	})
}

// FuzzLockIDs: an id is refused before anything is sent, or by nobody.
func FuzzLockIDs(f *testing.F) {
	for _, seed := range []string{"", "a", "\x00", "a\x00", "\xff", "🔒", strings.Repeat("x", 1024), strings.Repeat("x", 1025), strings.Repeat("é", 512) + "x"} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, id string) {
		valid := id != "" && len(id) <= pglocker.MaxLockIDBytes && utf8.ValidString(id) && !strings.Contains(id, "\x00")

		if err := pglocker.ValidateLockID(id); valid != (err == nil) || err != nil && !errors.Is(err, pglocker.ErrInvalidLockID) {
			t.Fatalf("%q: %v", id, err)
		}
	})
}
