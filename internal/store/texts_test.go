package store_test

import (
	"strings"
	"testing"

	"github.com/ismurov/pglocker/internal/store"
)

// TestEveryGenerationHasTheFloor: whatever writes a generation begins at the timeline's
// floor. One that didn't would be found by a failover alone that loses commits.
func TestEveryGenerationHasTheFloor(t *testing.T) {
	t.Parallel()

	for _, full := range []bool{false, true} {
		writes := 0

		for name, text := range store.Texts(full) {
			update := strings.Contains(text, "SET generation =")
			insert := strings.Contains(text, "INSERT INTO") && name != "create" && name != "createMany" // the first generation of all is 1

			if name == "resign" || name == "logTerm" {
				continue // they name a token that was granted
			}

			if !update && !insert {
				continue
			}

			writes++

			if !strings.Contains(text, "greatest(") || !strings.Contains(text, "pg_walfile_name") {
				t.Errorf("%s writes a generation without the floor:\n%s", name, text)
			}

			if i := strings.Index(text, "{"); i >= 0 {
				t.Errorf("%s is not complete: %s", name, text[i:])
			}
		}

		if writes < 8 {
			t.Errorf("%d statements write a generation, want more", writes)
		}
	}
}
