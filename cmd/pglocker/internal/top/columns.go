package top

import (
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/ismurov/pglocker"
)

// columns are the widths of the columns of the list. 0: there is no room for it.
type columns struct {
	width                                        int
	kind, name, holder, token, held, lease, wait int
	noOwners                                     bool
}

// columns fits the columns to the screen and to what is in them. On a narrow screen those that tell least go.
func (m *model) columns() columns {
	c := columns{width: m.width, kind: 9, token: 5, held: 6, lease: 6, wait: 4, noOwners: m.last != nil && m.last.NoOwners}
	needName, needHolder := 4, 6

	for i := range m.rows {
		r := &m.rows[i]
		needName = max(needName, ansi.StringWidth(printable(r.Name)))
		needHolder = max(needHolder, ansi.StringWidth(holders(r, c.noOwners)))

		if len(r.Holds) > 0 {
			c.token = max(c.token, len(strconv.FormatInt(r.token(), 10)))
		}
	}

	for _, drop := range []struct {
		below  int
		column *int
	}{{64, &c.token}, {60, &c.kind}, {52, &c.lease}, {28, &c.wait}, {22, &c.held}} {
		if m.width < drop.below {
			*drop.column = 0
		}
	}

	room := m.width - 2
	for _, w := range []int{c.kind, c.token, c.held, c.lease, c.wait} {
		if w > 0 {
			room -= w + 2
		}
	}

	if m.width < 44 {
		c.name = max(room, 1)

		return c
	}

	room -= 2

	// If both fit, the rest is shared. If not, each gets what the other leaves, and at least two fifths.
	if spare := room - needName - needHolder; spare >= 0 {
		c.name = needName + spare/2
	} else {
		c.name = max(min(needName, room*3/5), room-needHolder)
	}

	c.holder = room - c.name

	return c
}

// cell is a text with its column.
type cell struct {
	text  string
	width int
	right bool
	style lipgloss.Style
}

// join puts the cells of a line together, with two spaces between them.
func join(cells []cell, plain bool) string {
	var texts []string

	for _, c := range cells {
		if c.width == 0 {
			continue
		}

		text := fit(c.text, c.width)
		if c.right {
			text = fitRight(c.text, c.width)
		}

		if !plain {
			text = c.style.Render(text)
		}

		texts = append(texts, text)
	}

	return strings.Join(texts, "  ")
}

// head is the line of the columns' names. An arrow is at that by which rows are sorted.
func (c columns) head(order Order) string {
	mark := func(text string, by Order) string {
		if order == by {
			return text + "▾"
		}

		return text
	}

	return heading.Render(fit("  "+join([]cell{
		{text: "KIND", width: c.kind},
		{text: mark("NAME", ByName), width: c.name},
		{text: "HOLDER", width: c.holder},
		{text: "TOKEN", width: c.token, right: true},
		{text: mark("HELD", ByAge), width: c.held, right: true},
		{text: mark("LEASE", ByLease), width: c.lease, right: true},
		{text: mark("WAIT", ByWait), width: c.wait},
	}, true), c.width))
}

// line draws a row.
func (c columns) line(r *Row, chosen bool, now time.Time) string {
	token, lease, wait := "–", "–", ""
	holderStyle := lipgloss.NewStyle()

	if len(r.Holds) > 0 {
		token, lease = strconv.FormatInt(r.token(), 10), left(r.until(), now)
	}

	switch {
	case r.Waited:
		wait = "yes"
	case c.noOwners:
		wait = "?"
	}

	switch {
	case len(r.Holds) == 0 && r.Kind == pglocker.KindElection:
		holderStyle = bad
	case len(r.Holds) == 0:
		holderStyle = faint
	case r.Kind == pglocker.KindElection, r.Kind == pglocker.KindSemaphore:
		holderStyle = good
	}

	line := join([]cell{
		{text: kindName(r.Kind), width: c.kind, style: faint},
		{text: printable(r.Name), width: c.name, style: bold},
		{text: holders(r, c.noOwners), width: c.holder, style: holderStyle},
		{text: token, width: c.token, right: true},
		{text: held(r, now), width: c.held, right: true},
		{text: lease, width: c.lease, right: true, style: faint},
		{text: wait, width: c.wait, style: warn},
	}, chosen)

	if chosen {
		return selected.Render(fit("› "+line, c.width))
	}

	return fit("  "+line, c.width)
}
