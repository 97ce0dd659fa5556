package oracle

import (
	"slices"
	"testing"
)

func TestAtLeast(t *testing.T) {
	t.Parallel()

	free := [][]window{{{0, 10}, {20, 30}}, {{5, 25}}, {{8, 9}}}

	for rows, want := range map[int][]window{
		0: nil,
		1: {{0, 30}},
		2: {{5, 10}, {20, 25}},
		3: {{8, 9}},
		4: nil,
	} {
		if got := atLeast(rows, free); !slices.Equal(got, want) {
			t.Errorf("%d rows are free at %v, want %v", rows, got, want)
		}
	}
}
