package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
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

// printJSON prints one value on a line of its own.
func (a *app) printJSON(value any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)

	return e.Encode(value)
}

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

// cell is a field of a table.
type cell struct{ text, colour string }

// table prints rows in columns, to a million of rows without keeping them: the widths are those of the first rows,
// and longer fields shift their line.
type table struct {
	to       *bufio.Writer
	coloured bool
	rows     [][]cell
	widths   []int
	fixed    bool
}

// tableRows is how many rows the widths are taken from.
const tableRows = 1000

func newTable(to io.Writer, coloured bool, head ...string) *table {
	t := &table{to: bufio.NewWriter(to), coloured: coloured}

	var cells []cell
	for _, title := range head {
		cells = append(cells, cell{title, bold})
	}

	t.add(cells...)

	return t
}

func (t *table) add(cells ...cell) {
	for i := range cells {
		cells[i].text = printable(cells[i].text)
	}

	if t.fixed {
		t.print(cells)

		return
	}

	for i, c := range cells {
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}

		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
	}

	if t.rows = append(t.rows, cells); len(t.rows) == tableRows {
		t.fix()
	}
}

// fix prints the rows that the widths were taken from.
func (t *table) fix() {
	for _, row := range t.rows {
		t.print(row)
	}

	t.rows, t.fixed = nil, true
}

func (t *table) print(cells []cell) {
	for i, c := range cells {
		text := c.text
		if t.coloured {
			text = paint(c.colour, text)
		}

		_, _ = t.to.WriteString(text)

		if i < len(cells)-1 {
			_, _ = t.to.WriteString(strings.Repeat(" ", max(t.widths[i]-utf8.RuneCountInString(c.text), 0)+2))
		}
	}

	_ = t.to.WriteByte('\n')
}

// flush prints what is left.
func (t *table) flush() error {
	t.fix()

	return t.to.Flush()
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
	return r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == utf8.RuneError
}
