package main

import (
	"bufio"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// snapshot is what `top -o json` prints, as far as the tests look at it.
type snapshot struct {
	Totals struct {
		Held int `json:"held"`
	} `json:"totals"`
	Rows []struct {
		Kind   string `json:"kind"`
		Name   string `json:"name"`
		Waited *bool  `json:"waited"`
		Holds  []struct {
			ID    string `json:"id"`
			Token int64  `json:"token"`
			Owner string `json:"owner"`
		} `json:"holds"`
	} `json:"rows"`
	NotShown int `json:"rows_not_shown"`
}

// TestTopPrints: without a terminal it prints one snapshot.
func TestTopPrints(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.fails(64, []string{"--interval"}, "top", "--interval", "1ms")
	b.fails(64, []string{"--rows"}, "top", "--rows", "0")
	b.fails(64, []string{"unknown command"}, "top", "more")
	b.fails(69, []string{"pglocker migrate"}, "top", "--table", "nothing")

	if out := b.ok("top"); !strings.Contains(out, " held=0 waited=0 ") || strings.Count(out, "\n") != 1 {
		t.Errorf("of an empty table:\n%s", out)
	}

	lock := b.hold("jobs/a")
	b.hold("jobs/b")

	semaphore, err := b.locker.NewSemaphore("slow", 3)
	must(t, err)
	_, err = semaphore.TryAcquire(t.Context(), time.Minute, pglocker.WithPermits(2))
	must(t, err)

	out := b.ok("top")
	for _, text := range []string{"held=4", "slots=2 semaphores=1", "KIND ", "lock       jobs/a  other", "semaphore  slow    ■■ 2 held"} {
		if !strings.Contains(out, text) {
			t.Errorf("not printed: %q\n%s", text, out)
		}
	}

	if strings.Contains(out, "\x1b") {
		t.Errorf("colours without a terminal: %q", out)
	}

	s := decode[snapshot](t, b.ok("top", "-o", "json", "--rows", "1"))
	if s.Totals.Held != 4 || len(s.Rows) != 1 || s.NotShown != 2 || s.Rows[0].Name != "jobs/a" || s.Rows[0].Kind != "lock" ||
		s.Rows[0].Waited == nil || s.Rows[0].Holds[0].ID != "jobs/a" || s.Rows[0].Holds[0].Token != lock.Token() ||
		!strings.HasPrefix(s.Rows[0].Holds[0].Owner, "other#") {
		t.Errorf("as JSON: %+v", s)
	}
}

// TestTopLines: with --interval it prints a line for each look, until a signal, or until nobody reads any more.
func TestTopLines(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.hold("jobs/a")

	for _, end := range []string{"signal", "pipe"} {
		for _, format := range []string{"text", "json"} {
			cmd := b.command("top", "--interval", "100ms", "-o", format)
			pipe, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())

			lines := bufio.NewReader(pipe)

			for range 3 {
				line, err := lines.ReadString('\n')
				must(t, err)

				if format == "json" && !json.Valid([]byte(line)) || !strings.Contains(line, "jobs/a") {
					t.Errorf("%s: %s", format, line)
				}
			}

			want := syscall.SIGPIPE
			if end == "signal" {
				want = syscall.SIGINT
				must(t, cmd.Process.Signal(want))
			} else {
				must(t, pipe.Close())
			}

			_ = cmd.Wait()

			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != want {
				t.Errorf("%s, %s: %s", end, format, cmd.ProcessState)
			}
		}
	}
}

// TestTopOnTerminal: on a terminal it shows the view. A lock is freed there, and the history has the reason and by whom.
func TestTopOnTerminal(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	lock := b.hold("jobs/a")

	cmd, await, write := b.onTerminal("top", "--owner", "night")
	await("jobs/a")
	write("f")
	await("Reason:")
	write("INC-3\r")
	await("y/n")
	write("y")
	<-lock.Context().Done() // of the answer, the view may write only the letters that differ from the line before
	write("q")
	await("")

	if status := ended(t, cmd); status.ExitStatus() != 0 {
		t.Errorf("exit code %d", status.ExitStatus())
	}

	if out := b.ok("history", "jobs/a"); !strings.Contains(out, "INC-3 (by night)") {
		t.Errorf("the history says:\n%s", out)
	}
}
