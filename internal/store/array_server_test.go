package store_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestArraysOnTheServer: the server reads each element as it was.
func TestArraysOnTheServer(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		db := contract.Open(t, driver, newDatabase(t).String())

		texts := append(contract.OddLockIDs(), "", `\`, "\t", "(a,b)")
		alphabet := []rune("aN \"\\{},'\n\tUL\U0001f512\u00e9()[]:=.0")
		random := rand.New(rand.NewPCG(1, 2))

		for range 500 {
			var b strings.Builder
			for range random.IntN(12) {
				b.WriteRune(alphabet[random.IntN(len(alphabet))])
			}

			texts = append(texts, b.String())
		}

		numbers := []int64{0, 1, -1, math.MaxInt64, math.MinInt64}

		if got := unnest[string](t, db, "text", store.TextArray(texts)); !slices.Equal(got, texts) {
			for i := range texts {
				if i >= len(got) || got[i] != texts[i] {
					t.Fatalf("element %d, %q, comes back as %q", i, texts[i], got[min(i, len(got)-1)])
				}
			}
		}

		if got := unnest[int64](t, db, "bigint", store.BigintArray(numbers)); !slices.Equal(got, numbers) {
			t.Errorf("%d come back as %d", numbers, got)
		}
	})
}
