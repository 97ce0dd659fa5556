package main

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// cell is a field of a table.
type cell struct{ text, colour string }

// table prints rows in columns, and keeps no more than the first: these make the widths. Longer fields of later rows
// shift the rest of their line.
type table struct {
	to       *bufio.Writer
	coloured bool
	// width is where lines are cut, if it isn't 0.
	width  int
	rows   [][]cell
	widths []int
	fixed  bool
}

// tableRows is how many rows the widths are taken from.
const tableRows = 1000

func newTable(to io.Writer, coloured bool, head ...string) *table {
	t := &table{to: bufio.NewWriter(to), coloured: coloured}

	var cells []cell
	for _, title := range head {
		cells = append(cells, cell{title, bold})
	}

	_ = t.add(cells...) // nothing is written yet

	return t
}

func (t *table) add(cells ...cell) error {
	for i := range cells {
		cells[i].text = printable(cells[i].text)
	}

	if t.fixed {
		return t.print(cells)
	}

	for i, c := range cells {
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}

		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
	}

	if t.rows = append(t.rows, cells); len(t.rows) == tableRows {
		return t.fix()
	}

	return nil
}

// fix prints the rows that made the widths.
func (t *table) fix() error {
	for _, row := range t.rows {
		if err := t.print(row); err != nil {
			return err
		}
	}

	t.rows, t.fixed = nil, true

	return nil
}

func (t *table) print(cells []cell) error {
	at := 0

	for len(cells) > 0 && cells[len(cells)-1].text == "" {
		cells = cells[:len(cells)-1]
	}

	for i, c := range cells {
		text := []rune(c.text)
		if t.width > 0 {
			text = text[:min(len(text), max(t.width-at, 0))]
		}

		at += len(text)
		shown := string(text)

		if t.coloured {
			shown = paint(c.colour, shown)
		}

		_, _ = t.to.WriteString(shown)

		if i < len(cells)-1 {
			gap := max(t.widths[i]-len(text), 0) + 2
			if t.width > 0 {
				gap = min(gap, max(t.width-at, 0))
			}

			at += gap
			_, _ = t.to.WriteString(strings.Repeat(" ", gap))
		}
	}

	return t.to.WriteByte('\n') // the first error of a bufio.Writer stays
}

// flush prints what is left.
func (t *table) flush() error {
	if err := t.fix(); err != nil {
		return err
	}

	return t.to.Flush()
}
