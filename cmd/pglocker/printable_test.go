//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode"
)

// TestPrintsNothingThatTurns: what others put into an id, an owner or a reason is escaped, and in JSON still the same.
func TestPrintsNothingThatTurns(t *testing.T) {
	t.Parallel()

	const id, owner = "a\u202eb\u200b\x7f\u009b\U000e0041\\é", "\x1b[2J\u2066\u00ad\ufeff\nline"

	b := newBed(t)
	lock := b.hold(id)
	b.exec("UPDATE pglocker.lock_statuses SET owner = $1", owner)
	b.exec("UPDATE pglocker.lock_history SET owner = $1, reason = $1", owner)

	prints := func(args []string, text string) {
		t.Helper()

		odd := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
		if i := strings.IndexFunc(text, odd); i >= 0 || text == "" {
			t.Errorf("%q prints %q", args, text)
		}

		if slices.Contains(args, "json") {
			var value any
			must(t, json.Unmarshal([]byte(text), &value))

			if found := fmt.Sprintf("%q", fmt.Sprint(value)); !strings.Contains(found, strings.Trim(fmt.Sprintf("%q", id), `"`)) {
				t.Errorf("%q has no such id: %q", args, text)
			}
		}
	}

	for _, args := range [][]string{
		{"ls"},
		{"show", id},
		{"history"},
		{"history", id, "--at", "0s"},
		{"top"},
	} {
		prints(args, b.ok(args...))
		args = append(args, "-o", "json")
		prints(args, b.ok(args...))
	}

	for _, args := range [][]string{
		{"ls", "--watch", "-o", "json"},
		{"top", "--interval", "1h", "-o", "json"},
		{"top", "--interval", "1h"},
	} {
		p := b.launch(args...)
		prints(args, p.line())
		p.signal(syscall.SIGINT)
		<-p.exited
	}

	if offered := b.ok("__complete", "show", ""); !strings.HasPrefix(offered, ":") {
		t.Errorf("the shell is offered %q", offered)
	}

	args := []string{"free", id, "--yes", "--token", fmt.Sprint(lock.Token()), "--reason", "a test", "-o", "json"}
	prints(args, b.ok(args...))
}
