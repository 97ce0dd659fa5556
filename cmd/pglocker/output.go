package main

import (
	"fmt"
	"os"
	"strings"
	"time"
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

// printable is a text that changes nothing on a terminal: control characters are written as Go writes them.
func printable(text string) string {
	if strings.IndexFunc(text, control) < 0 {
		return text
	}

	var b strings.Builder

	for _, r := range text {
		if control(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}

	return b.String()
}

// control reports whether a character may change the terminal or the direction of its text.
func control(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x61c || r == 0x200e || r == 0x200f ||
		r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == utf8.RuneError
}

// stamp is a time for people, by the database's clock.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// precise is [stamp] with milliseconds.
func precise(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000Z") }
