package pglocker_test

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

// TestWeight: a program on lib/pq alone doesn't link pgx. What is left of it is initialised with its packages.
func TestWeight(t *testing.T) {
	t.Parallel()

	program := filepath.Join(t.TempDir(), "weight")

	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/weight").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	symbols, err := exec.CommandContext(t.Context(), "go", "tool", "nm", "-size", program).Output()
	contract.Must(t, err)

	var of struct{ pgx, pglocker int }

	for line := range strings.Lines(string(symbols)) {
		fields := strings.Fields(line) // address, size, kind, name
		if len(fields) < 4 || !strings.EqualFold(fields[2], "T") {
			continue
		}

		size, err := strconv.Atoi(fields[1])
		contract.Must(t, err)

		switch name := fields[3]; {
		case strings.HasPrefix(name, "github.com/ismurov/pglocker"):
			of.pglocker += size
		case strings.HasPrefix(name, "github.com/jackc/"):
			of.pgx += size
		}

		for _, unwanted := range []string{
			"github.com/jackc/pgx/v5/stdlib.", "github.com/jackc/pgx/v5/pgxpool.(*Pool)", "github.com/jackc/pgx/v5/pgxpool.New",
			"github.com/jackc/pgx/v5.(*Conn).Query", "github.com/jackc/pgx/v5/pgconn.connect",
		} {
			if strings.HasPrefix(fields[3], unwanted) {
				t.Errorf("linked: %s", fields[3])
			}
		}
	}

	// pgx's code is 40 kB where it isn't used, and 1.2 MB where it is.
	if of.pglocker == 0 || of.pgx > 150_000 {
		t.Errorf("linked: %d bytes of pgx's code, %d of pglocker's", of.pgx, of.pglocker)
	}
}
