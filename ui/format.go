package ui

import (
	"errors"
	"fmt"
	"html"
	"html/template"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/ismurov/pglocker"
)

// printable reports whether a character shows what it is: a control character doesn't, nor one that changes the
// direction of the text or has no width.
func printable(c rune) bool { return c == ' ' || unicode.IsGraphic(c) && !unicode.IsSpace(c) }

func escaped(c rune) string {
	quoted := strconv.QuoteRuneToASCII(c)

	return quoted[1 : len(quoted)-1]
}

// visible is a text with escapes for what can't be seen, as for a title.
func visible(text string) string {
	var b strings.Builder

	for _, c := range text {
		if printable(c) {
			b.WriteRune(c)
		} else {
			b.WriteString(escaped(c))
		}
	}

	return b.String()
}

// idHTML is visible with the escapes marked: a lock may be named like one.
func idHTML(text string) template.HTML {
	var b strings.Builder

	b.WriteString(`<bdi class="id">`)

	for _, c := range text {
		if printable(c) {
			b.WriteString(html.EscapeString(string(c)))
		} else {
			b.WriteString(`<span class="esc">` + escaped(c) + `</span>`)
		}
	}

	b.WriteString(`</bdi>`)

	return template.HTML(b.String())
}

// ownerHTML is an owner, with what the Locker added to it made small.
func ownerHTML(owner string) template.HTML {
	name, id := ownerName(owner)
	if name == "" && id == "" {
		return `<span class="none">not known</span>`
	}

	return idHTML(name) + template.HTML(`<span class="sub">`) + idHTML(id) + `</span>`
}

// clock is the time of day, for a title.
func clock(t time.Time) string { return t.UTC().Format(time.TimeOnly) }

// duration is a time in its two largest units.
func duration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return strconv.FormatInt(max(d.Microseconds(), 0), 10) + " µs"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatInt(int64(d/time.Second), 10) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	case d < 10_000*time.Hour:
		return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
	default:
		return fmt.Sprintf("%d d", int(d.Hours())/24)
	}
}

// when is a time of the database. The script of the page adds how long ago that is, or in how long it will be.
// without says that the script does it: then the text doesn't change from second to second.
func when(t, now time.Time, without bool) template.HTML {
	if t.IsZero() {
		return `<span class="none">not known</span>`
	}

	format := time.TimeOnly

	switch {
	case t.Year() >= 9999:
		return `<span>never</span>`
	case t.Before(now.Add(-18*time.Hour)) || t.After(now.Add(18*time.Hour)):
		format = "2 Jan 15:04:05"
	}

	if t.Year() != now.Year() {
		format = "2 Jan 2006 15:04"
	}

	text := ""

	switch d := now.Sub(t); {
	case without:
	case d < 0:
		text = "in " + duration(-d)
	default:
		text = duration(d) + " ago"
	}

	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s</time> <span class="ago" data-at="%d">%s</span>`,
		t.UTC().Format(time.RFC3339Nano), t.UTC().Format(format), t.UnixMilli(), text))
}

// failure says what an error of the database means. Its text may name hosts and roles: that goes to the log.
func failure(err error) string {
	switch {
	case errors.Is(err, errTooMany):
		return "Too many other pages wait to be read."
	case errors.Is(err, pglocker.ErrTableNotFound):
		return "The table of the locks isn't there. pglocker.MigrateDB makes it, and so does the command pglocker migrate."
	case errors.Is(err, pglocker.ErrInvalidTable):
		return "The table can't hold locks: a column is missing, or of a wrong type."
	case errors.Is(err, pglocker.ErrPermissionDenied):
		return "The role of this page may not read the table. It needs USAGE on the schema and SELECT on the table."
	case errors.Is(err, pglocker.ErrReadOnly):
		return "The database is a standby, or read-only."
	case errors.Is(err, pglocker.ErrClosed):
		return "The program is shutting down."
	default:
		return "The database doesn't answer."
	}
}
