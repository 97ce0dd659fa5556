package history_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// TestLoad: what two processes recorded is one history, in the order of time. One of them
// was killed within an operation, and while it wrote a line.
func TestLoad(t *testing.T) {
	t.Parallel()

	folder := t.TempDir()

	one, err := history.NewRecorder(filepath.Join(folder, "one.jsonl"), "one")
	must(t, err)

	killed, err := history.NewRecorder(filepath.Join(folder, "killed.jsonl"), "killed")
	must(t, err)

	first := one.Invoke(history.Event{Kind: history.Acquire, Lock: "a"})
	killed.Invoke(history.Event{Kind: history.Lock, Lock: "a"})

	first.At, first.Outcome, first.Token = 0, history.OK, 2
	one.Return(first)
	one.Note(history.Event{Kind: history.Renewed, Lock: "a", Token: 2})
	one.Note(history.Event{Kind: history.Lost, Lock: "a", Token: 2})
	must(t, one.Close())
	must(t, killed.Close())

	torn, err := os.OpenFile(filepath.Join(folder, "killed.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = torn.WriteString(`{"at": 1, "kind": "acq`)
	must(t, err)
	must(t, torn.Close())

	h, err := history.Load(folder)
	must(t, err)

	if len(h.Operations) != 2 || len(h.Notes) != 1 || len(h.Renewals) != 1 {
		t.Fatalf("%d operations, %d notes, %d renewals, want 2, 1 and 1", len(h.Operations), len(h.Notes), len(h.Renewals))
	}

	if op := h.Operations[0]; op.Client != "one" || op.Outcome != history.OK || op.Token != 2 ||
		op.End <= op.Call || op.Kind != history.Acquire {
		t.Errorf("first %+v", op)
	}

	if op := h.Operations[1]; op.Client != "killed" || op.Outcome != history.Unknown || op.End != history.Never {
		t.Errorf("second %+v, want it open", op)
	}

	if n := h.Notes[0]; n.At < h.Operations[0].End {
		t.Errorf("the note is from %d, before %d", n.At, h.Operations[0].End)
	}
}

// TestTail: it reads what has come since, once, and of a line nothing before its end.
func TestTail(t *testing.T) {
	t.Parallel()

	folder := t.TempDir()

	one, err := history.NewRecorder(filepath.Join(folder, "one.jsonl"), "one")
	must(t, err)
	one.Note(history.Event{Kind: history.Lost, Lock: "before"})

	tail, err := history.NewTail(folder)
	must(t, err)

	wantLocks := func(want ...string) {
		t.Helper()

		events, err := tail.Read()
		must(t, err)

		var locks []string
		for _, e := range events {
			locks = append(locks, e.Lock)
		}

		if !slices.Equal(locks, want) {
			t.Errorf("read %q, want %q", locks, want)
		}
	}

	wantLocks()
	one.Note(history.Event{Kind: history.Lost, Lock: "a"})

	two, err := history.NewRecorder(filepath.Join(folder, "two.jsonl"), "two")
	must(t, err)
	two.Note(history.Event{Kind: history.Lost, Lock: "b"})
	must(t, two.Close())

	half, err := os.OpenFile(filepath.Join(folder, "two.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = half.WriteString(`{"kind": "lost", `)
	must(t, err)
	wantLocks("a", "b")

	_, err = half.WriteString(`"lock": "c"}` + "\n")
	must(t, err)
	must(t, half.Close())
	wantLocks("c")

	one.Note(history.Event{Kind: history.Lost, Lock: "d"})
	wantLocks("d")

	// The other process is in the middle of a line when the tail begins.
	half, err = os.OpenFile(filepath.Join(folder, "two.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = half.WriteString(`{"kind": "lost", `)
	must(t, err)

	tail, err = history.NewTail(folder)
	must(t, err)

	_, err = half.WriteString(`"lock": "e"}` + "\n")
	must(t, err)
	must(t, half.Close())
	wantLocks("e")
	must(t, one.Close())
}

// TestJoinRefuses: a return without its invocation is no history.
func TestJoinRefuses(t *testing.T) {
	t.Parallel()

	if h, err := history.Join([]history.Event{{Phase: history.Return, Client: "one", Op: 1}}); err == nil {
		t.Errorf("joined to %+v", h)
	}
}

// TestClocks: both clocks, put together, are the wall clock.
func TestClocks(t *testing.T) {
	t.Parallel()

	offset := history.WallOffset()
	before := time.Now()
	now := time.Unix(0, history.Now()+offset)

	if off := now.Sub(before); off.Abs() > time.Second {
		t.Errorf("off by %s", off)
	}
}
