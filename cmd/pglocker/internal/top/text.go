package top

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"github.com/ismurov/pglocker"
)

// printable shows a text that may hold anything: control characters, which a terminal would obey, and characters
// that turn the direction of writing are escaped as in Go.
func printable(text string) string {
	var b strings.Builder

	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}

	return b.String()
}

// fit cuts or fills a text to the width of n cells.
func fit(text string, n int) string {
	if n <= 0 {
		return ""
	}

	text = ansi.Truncate(text, n, "…")

	return text + strings.Repeat(" ", max(n-ansi.StringWidth(text), 0))
}

// fitRight is fit for numbers, which end at the right.
func fitRight(text string, n int) string {
	return strings.Repeat(" ", max(n-ansi.StringWidth(text), 0)) + ansi.Truncate(text, max(n, 0), "…")
}

// span is a duration in two units at most: 22s, 3m05s, 3h12m, 2d04h.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d < 100*365*24*time.Hour:
		return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
	}

	return "forever"
}

// count is a number with its thousands apart.
func count(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}

	return digits
}

// perSecond is the changes a second.
func perSecond(s *Snapshot) string {
	if s.Changes == nil {
		return "–"
	}

	text := strconv.FormatFloat(*s.Changes, 'f', 1, 64)
	if *s.Changes >= 10 {
		text = count(int(*s.Changes + 0.5))
	}

	if s.ChangesAtLeast {
		return "≥ " + text
	}

	return text
}

// holder is an owner without what only makes the grant unique, behind its last "#".
func holder(owner string) string {
	if i := strings.LastIndexByte(owner, '#'); i > 0 {
		owner = owner[:i]
	}

	return printable(owner)
}

// kindName is what a row is called.
func kindName(k pglocker.Kind) string {
	if k == pglocker.KindRWLock {
		return "rw lock"
	}

	return string(k)
}

// holders says who holds a row.
func holders(r *Row, noOwners bool) string {
	who := func(h Hold) string {
		switch {
		case noOwners:
			return "not known"
		case h.Owner == "":
			return "minimum hold"
		}

		return holder(h.Owner)
	}

	n := len(r.Holds)

	switch {
	case r.Kind == pglocker.KindSemaphore:
		return slots(r)
	case n == 0 && r.Kind == pglocker.KindElection:
		return "no leader"
	case n == 0:
		return "free"
	case r.writes():
		return "writer " + who(r.Holds[0])
	case r.Kind == pglocker.KindRWLock && n == 1:
		return "reader " + who(r.Holds[0])
	case r.Kind == pglocker.KindRWLock:
		return count(n) + " readers"
	}

	return who(r.Holds[0])
}

// slots shows how many slots are held, of those that were ever used at once.
func slots(r *Row) string {
	const drawn = 8

	text := count(len(r.Holds)) + " held"
	if r.Slots == 0 || r.Slots > drawn {
		return text
	}

	return strings.Repeat("■", len(r.Holds)) + strings.Repeat("□", r.Slots-len(r.Holds)) + " " + text
}

// left is how long a lease still runs.
func left(until, now time.Time) string {
	return span(until.Sub(now))
}

// held is how long a row has been held.
func held(r *Row, now time.Time) string {
	since := r.since()
	if since.IsZero() {
		return "–"
	}

	return span(now.Sub(since))
}
