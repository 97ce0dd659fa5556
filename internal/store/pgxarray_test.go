package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

// TestPgxArrays: pgx sends what it sends for the slices, and a literal where it knows no types.
func TestPgxArrays(t *testing.T) {
	t.Parallel()

	m := pgtype.NewMap()

	for _, test := range []struct {
		slice   any
		oid     uint32
		literal string
	}{
		{[]string{"a", "", "NULL", `"`, "🔒"}, pgtype.TextArrayOID, `{"a","","NULL","\"","🔒"}`},
		{[]string{"a", "b"}, pgtype.VarcharArrayOID, `{"a","b"}`},
		{[]string{}, pgtype.TextArrayOID, `{}`},
		{[]int64{0, -1, 1<<63 - 1}, pgtype.Int8ArrayOID, `{0,-1,9223372036854775807}`},
		{[]int64{}, pgtype.Int8ArrayOID, `{}`},
	} {
		array := pgxArrays([]any{test.slice})[0]

		want, err := m.Encode(test.oid, pgtype.BinaryFormatCode, test.slice, nil)
		if err != nil {
			t.Fatal(err)
		}

		if got, err := m.Encode(test.oid, pgtype.BinaryFormatCode, array, nil); err != nil || string(got) != string(want) {
			t.Errorf("%q is sent as %q, want %q (error: %v)", test.slice, got, want, err)
		}

		if got, err := m.Encode(0, pgtype.TextFormatCode, array, nil); err != nil || string(got) != test.literal {
			t.Errorf("%q is written as %s, want %s (error: %v)", test.slice, got, test.literal, err)
		}

		if got := fmt.Sprint(array); got != test.literal {
			t.Errorf("it is logged as %s, want %s", got, test.literal)
		}

		var got string
		if text, err := json.Marshal(array); err != nil || json.Unmarshal(text, &got) != nil || got != test.literal {
			t.Errorf("it is logged as %s, want %s in JSON (error: %v)", text, test.literal, err)
		}
	}
}

// TestPgxArraysAllocateOnce: what is allocated doesn't grow with the number of elements.
func TestPgxArraysAllocateOnce(t *testing.T) { // not in parallel: it counts allocations
	m, room := pgtype.NewMap(), make([]byte, 0, 1<<20)

	allocated := func(elements int) float64 {
		ids, numbers := make([]string, elements), make([]int64, elements)
		for i := range elements {
			ids[i], numbers[i] = fmt.Sprint(strings.Repeat("lock", 10), i), int64(i+1000)
		}

		return testing.AllocsPerRun(100, func() {
			for i, array := range pgxArrays([]any{ids, numbers}) {
				if _, err := m.Encode([]uint32{pgtype.TextArrayOID, pgtype.Int8ArrayOID}[i], pgtype.BinaryFormatCode, array, room); err != nil {
					t.Error(err)
				}
			}
		})
	}

	if few, many := allocated(2), allocated(500); many > few {
		t.Errorf("2 elements are %v allocations, and 500 are %v", few, many)
	}
}
