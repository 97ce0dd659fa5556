package resource_test

import (
	"bufio"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/resource"
)

// TestFencing: a resource that compares tokens takes no write of an older holder once it
// has seen a newer one; one that doesn't takes all.
func TestFencing(t *testing.T) {
	t.Parallel()

	for _, fenced := range []bool{true, false} {
		t.Run(strconv.FormatBool(fenced), func(t *testing.T) {
			t.Parallel()

			folder := t.TempDir()
			in, end := io.Pipe()
			out, said := io.Pipe()
			done := make(chan error, 1)

			go func() { done <- resource.Main(filepath.Join(folder, "resource.jsonl"), fenced, in, said) }()

			address, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}

			conn, err := resource.Dial(strings.TrimSpace(address), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()

			conn.Write("a", 2, 1)

			if value, ok := conn.Read("a", 4); !ok || value != 1 {
				t.Errorf("read %d, %t, want 1", value, ok)
			}

			conn.Write("a", 2, 7) // by then too old
			conn.Write("b", 2, 1) // another lock

			want := int64(7)
			if fenced {
				want = 1
			}

			if value, ok := conn.Read("a", 4); !ok || value != want {
				t.Errorf("read %d, %t, want %d", value, ok, want)
			}

			if _, ok := conn.Read("a", 3); ok == fenced {
				t.Errorf("an old token may read: %t", ok)
			}

			_ = end.Close()

			if err := <-done; err != nil {
				t.Fatal(err)
			}

			h, err := history.Load(folder)
			if err != nil {
				t.Fatal(err)
			}

			if want := map[bool]int{true: 2, false: 3}[fenced]; len(h.Notes) != want {
				t.Errorf("%d writes recorded, want %d", len(h.Notes), want)
			}
		})
	}
}
