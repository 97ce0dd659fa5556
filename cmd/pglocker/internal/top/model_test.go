package top

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/ismurov/pglocker"
)

// stage runs a model without a terminal: it carries out its commands, in the fake time of a synctest bubble.
type stage struct {
	t        *testing.T
	m        *model
	messages chan tea.Msg
	quit     bool
}

func newStage(t *testing.T, table Table) *stage {
	t.Helper()

	s := &stage{t: t, messages: make(chan tea.Msg, 100)}
	s.m = newModel(t.Context(), table, Options{Title: "pglocker.lock_statuses", Interval: time.Second, Query: Query{Limit: 1000}})
	s.do(s.m.Init())
	t.Cleanup(func() { time.Sleep(24 * time.Hour) }) // its timers end

	return s
}

func (s *stage) do(cmd tea.Cmd) {
	if cmd == nil {
		return
	}

	go func() {
		select {
		case s.messages <- cmd():
		case <-s.t.Context().Done():
		}
	}()
}

// pass lets that much time pass.
func (s *stage) pass(d time.Duration) {
	end := time.After(d)

	for {
		select {
		case msg := <-s.messages:
			s.receive(msg)
		case <-end:
			synctest.Wait()

			for len(s.messages) > 0 {
				s.receive(<-s.messages)
				synctest.Wait()
			}

			return
		}
	}
}

func (s *stage) receive(msg tea.Msg) {
	switch msg := msg.(type) {
	case tea.BatchMsg:
		for _, cmd := range msg {
			s.do(cmd)
		}
	case tea.QuitMsg:
		s.quit = true
	default:
		_, cmd := s.m.Update(msg)
		s.do(cmd)
	}
}

// keys presses keys: words are special keys, all else is text.
func (s *stage) keys(keys ...string) {
	for _, k := range keys {
		special, ok := map[string]rune{
			"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown, "end": tea.KeyEnd,
		}[k]

		switch {
		case ok:
			s.receive(tea.KeyPressMsg{Code: special})
		case k == "ctrl+c":
			s.receive(tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl})
		default:
			for _, r := range k {
				s.receive(tea.KeyPressMsg{Code: r, Text: string(r)})
			}
		}
	}

	s.pass(time.Millisecond)
}

func (s *stage) screen() string { return ansi.Strip(strings.Join(s.m.screen(), "\n")) }

func (s *stage) shows(texts ...string) {
	s.t.Helper()

	for _, text := range texts {
		if !strings.Contains(s.screen(), text) {
			s.t.Errorf("not on the screen: %q\n%s", text, s.screen())
		}
	}
}

func (s *stage) hides(texts ...string) {
	s.t.Helper()

	for _, text := range texts {
		if strings.Contains(s.screen(), text) {
			s.t.Errorf("on the screen: %q\n%s", text, s.screen())
		}
	}
}

func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

// TestPace: a look that takes three seconds leaves the server alone for thirty.
func TestPace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		table := &fakeTable{rows: table()}
		s := newStage(t, table)
		s.pass(10*time.Second + time.Millisecond)

		if n := table.scans(); n != 11 {
			t.Errorf("%d looks in 10 s, want 11", n)
		}

		table.takes = 3 * time.Second
		s.pass(100 * time.Second)

		for i, began := range table.began {
			if i > 1 && began.Sub(table.began[i-1]) < 33*time.Second {
				t.Errorf("a look %s after the one before", began.Sub(table.began[i-1]))
			}
		}

		if n := table.scans(); n != 4 { // the first of them doesn't count alone
			t.Errorf("%d looks, want 4", n)
		}

		s.shows("read")
		s.hides("stale")
		s.keys("r")
		s.pass(3 * time.Second)
		s.shows("read all rows in 3s, 3s ago")
	})
}

// TestStale: a failed look, and one that doesn't return, are said. The data stays on the screen.
func TestStale(t *testing.T) {
	bubble(t, func(t *testing.T) {
		table := &fakeTable{rows: table()}
		s := newStage(t, table)
		s.pass(time.Millisecond)
		s.shows("● live", "nightly")

		table.err = errors.New("connection\nrefused")
		s.pass(20 * time.Second)
		s.shows("stale since 03:12:00Z, for 20s", "! Trying again: connection refused", "nightly")

		table.err = nil
		s.pass(time.Second)
		s.shows("● live")
		s.hides("stale", "refused")

		table.takes = time.Hour // it hangs
		s.pass(10 * time.Second)
		s.shows("stale", "no answer for")
		s.pass(firstLimit)
		s.shows("the server doesn't answer")

		table.takes = 0
		s.pass(2*firstLimit + 2*time.Second)
		s.shows("● live")
	})
}

// TestSlowFirstLook: a table that takes longer than the first limit is read in the end.
func TestSlowFirstLook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStage(t, &fakeTable{rows: table(), takes: firstLimit + 10*time.Second})
		s.pass(firstLimit + time.Millisecond)
		s.shows("▲ no data yet", "the server doesn't answer")
		s.pass(2*firstLimit + 2*time.Second)
		s.shows("read", "nightly")
		s.hides("no data yet")
	})
}

// TestStandby: that the server is one is said.
func TestStandby(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStage(t, &fakeTable{standby: true})
		s.pass(time.Millisecond)
		s.shows("The server is a standby", "Nothing is held.")
	})
}

// TestFilterAndSort: rows, the cursor and the text of the filter.
func TestFilterAndSort(t *testing.T) {
	bubble(t, func(t *testing.T) {
		table := &fakeTable{rows: table()}
		s := newStage(t, table)
		s.pass(time.Millisecond)
		s.shows("› lock       import/42", "1 of 7", "HELD▾")

		s.keys("/", "web-2")
		s.shows("/ web-2", "config", "1 of 2")
		s.hides("lock       import/42", "nightly")
		s.keys("q", "enter")
		s.shows("/ web-2q", "Nothing that is held matches.")
		s.keys("esc")
		s.shows("1 of 7")

		s.keys("s", "s", "s")
		s.shows("NAME▾")
		s.keys("end")
		s.shows("› rw lock    schema", "7 of 7")

		table.mu.Lock() // a row comes before it: the cursor stays at its row
		table.rows = append([]pglocker.LockStatus{heldRow("aaa", 2, "a#1", 0)}, table.rows...)
		table.mu.Unlock()
		s.pass(time.Second)
		s.shows("› rw lock    schema", "8 of 8")

		s.keys("3")
		s.shows("billing", "cleanup", "no leader", "of 2")
		s.hides("schema")

		if s.keys("q"); !s.quit {
			t.Error("q doesn't quit")
		}
	})
}

// TestHiddenRows: of a table with more rows than are kept, the filter finds the others by a look.
func TestHiddenRows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		table := &fakeTable{}
		for i := range 3000 {
			table.rows = append(table.rows, heldRow(fmt.Sprintf("job%04d", i), 2, "a#1", time.Duration(3000-i)*time.Second))
		}

		s := newStage(t, table)
		s.pass(time.Millisecond)
		s.shows("3,000 held", "1 of 1,000, 2,000 not shown")
		s.keys("/", "job2999")
		s.shows("› lock       job2999", "1 of 1")
		s.keys("esc")
		s.shows("1 of 1,000, 2,000 not shown")
	})
}

// TestFree: a lock is freed with its token and a reason, after two questions.
func TestFree(t *testing.T) {
	bubble(t, func(t *testing.T) {
		table := &fakeTable{rows: table()}
		s := newStage(t, table)
		s.pass(time.Millisecond)

		freed := func(want ...string) {
			t.Helper()

			if got := strings.Join(table.freed, "|"); got != strings.Join(want, "|") {
				t.Errorf("freed %q, want %q", got, want)
			}

			table.freed = nil
		}

		s.keys("f")
		s.shows("Free lock import/42?", "Held by ops-1, token 8.", "Reason:")
		s.keys("enter") // a reason is asked for
		s.hides("y/n")
		s.keys(" the holder is dead ", "enter")
		s.shows("Reason:  the holder is dead", "Free it? y/n")
		s.keys("n")
		s.shows("Nothing was freed.")
		freed()

		s.keys("f", "dead", "enter", "y")
		freed("import/42 8 dead")
		s.shows("Freed lock import/42, token 8.")

		s.keys("/", "a:b", "enter", "f") // three hold it
		s.shows("Several hold it", "SLOT", "› 1")
		s.keys("down", "down", "f")
		s.shows("Free semaphore a:b, slot 10?")
		s.keys("why", "enter", "y")
		freed("pglocker:semaphore:a:b:10 20 why")

		table.err = pglocker.ErrWrongGeneration
		s.keys("f", "why", "enter", "y")
		s.shows("Not freed: it was granted or released since. Look again.")
		freed("pglocker:semaphore:a:b:10 20 why")
	})
}

// TestOpen: an opened lock shows its status and its newest events.
func TestOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		table := &fakeTable{rows: table()}
		s := newStage(t, table)
		s.pass(time.Millisecond)
		s.keys("enter")
		s.shows("lock  import/42", "ops-1#a.1", "2026-11-27 00:12:00Z", "for 3h00m", "this table has no history")

		for i := range 250 {
			table.events = append(table.events, pglocker.Event{
				Kind: pglocker.EventGranted, LockID: "import/42", Token: int64(i), Owner: "ops-1#a.1",
				At: t0.Add(-time.Hour).Add(time.Duration(i) * time.Second),
			})
		}

		s.pass(time.Second)
		s.shows("02:16:09Z  granted    249  ops-1")

		if n := len(s.m.opened.history.events); n != historyShown || !s.m.opened.history.more {
			t.Errorf("%d events", n)
		}

		table.mu.Lock()
		table.rows[0] = freeRow("import/42", 9)
		table.mu.Unlock()
		s.pass(time.Second)
		s.shows("state     free")

		table.mu.Lock()
		table.rows = table.rows[1:]
		table.mu.Unlock()
		s.pass(time.Second)
		s.shows("gone: the row was deleted")
		s.keys("f")
		s.shows("Nothing to free")
		s.keys("esc")
		s.shows("1 of 6")
	})
}

// TestSizes: on a screen of any size, whatever is shown, no line is too long and none too many.
func TestSizes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, keys := range [][]string{nil, {"/", "e"}, {"enter"}, {"f"}, {"f", "why", "enter"}, {"?"}, {"4", "enter"}, {"/", "zzz"}} {
			table := &fakeTable{rows: table(), three: true}
			table.rows = append(table.rows, heldRow("z漢字"+strings.Repeat("é", 300), 1<<42, strings.Repeat("o", 255), 50*time.Hour))

			s := newStage(t, table)
			s.pass(time.Millisecond)

			table.err = errors.New(strings.Repeat("trouble ", 40))
			s.pass(time.Second)
			s.keys(keys...)

			for width := 1; width <= 130; width += 6 {
				for height := 1; height <= 50; height += 1 + height/8 {
					s.receive(tea.WindowSizeMsg{Width: width, Height: height})

					lines := s.m.screen()
					if len(lines) != height {
						t.Fatalf("%q: %d lines at %dx%d", keys, len(lines), width, height)
					}

					for _, line := range lines {
						if w := ansi.StringWidth(line); w > width {
							t.Fatalf("%q: a line of %d cells at %dx%d: %q", keys, w, width, height, line)
						}
					}
				}
			}
		}
	})
}
