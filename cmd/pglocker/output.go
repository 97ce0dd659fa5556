package main

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// The formats of --output.
const (
	formatText = "text"
	formatJSON = "json"
)

func (a *app) checkFormat() error {
	if a.format != formatText && a.format != formatJSON {
		return fmt.Errorf("invalid --output %q: it is text or json", a.format)
	}

	return nil
}

func (a *app) json() bool { return a.format == formatJSON }

// terminal reports whether a file is a terminal.
func terminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// colours reports whether what goes to f may have colours.
func colours(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && terminal(f)
}

// Colours, see [paint].
const (
	plain  = ""
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// paint gives a text a colour.
func paint(colour, text string) string {
	if colour == plain || text == "" {
		return text
	}

	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// printable is a text that changes nothing on a terminal: what doesn't print is written as Go writes it.
func printable(text string) string {
	if strings.IndexFunc(text, control) < 0 {
		return text
	}

	var b strings.Builder

	for _, r := range text {
		switch {
		case !control(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}

	return b.String()
}

// control reports whether a character doesn't print: it may change the terminal or the direction of its text, or be
// seen by nobody.
func control(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }

// stamp is a time for people, by the database's clock.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// precise is [stamp] with milliseconds.
func precise(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000Z") }
