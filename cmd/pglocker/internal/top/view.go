package top

import (
	"strings"

	tea "charm.land/bubbletea/v2"
)

// View draws the screen.
func (m *model) View() tea.View {
	v := tea.NewView(strings.Join(m.screen(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "pglocker top"

	return v
}

// screen is as many lines as the screen has, none wider than it.
func (m *model) screen() []string {
	var above, middle []string

	below := m.below()

	switch {
	case m.help:
		above = m.head()
		middle = helpLines(m.height - len(above) - len(below))
	case m.opened != nil:
		above = append(m.head(), m.banners()...)
		middle = m.details(max(m.height-len(above)-len(below), 0))
	default:
		above = m.above()
		middle = m.list(max(m.height-len(above)-len(below), 0))
	}

	lines := append(above, middle...)
	for len(lines)+len(below) < m.height {
		lines = append(lines, "")
	}

	lines = append(lines, below...)
	lines = lines[max(len(lines)-m.height, 0):]

	for i := range lines {
		lines[i] = fit(lines[i], m.width)
	}

	return lines
}

// helpLines tell of the keys and of what is shown.
func helpLines(n int) []string {
	rows := [][2]string{
		{"↑ ↓ PgUp PgDn g G", "move"},
		{"⏎", "open a lock: its status, its history where the table has one"},
		{"/", "show what has a text in its name or its holder; esc shows all"},
		{"1 2 3 4 5", "all, locks, elections, semaphores, read-write locks"},
		{"s", "sort: held longest, waited for first, lease that ends first, name"},
		{"r", "read the table now"},
		{"f", "free it by force, for a reason that the history keeps"},
		{"ctrl+z", "suspend"},
		{"q ctrl+c", "quit"},
		{"", ""},
		{"HELD", "how long the oldest hold has lasted"},
		{"LEASE", "when the lease ends that ends first, unless it is renewed"},
		{"WAIT", "a waiter that listens has marked it; waiters that poll don't show"},
		{"■■□", "slots of a semaphore, held and free, of those ever used at once"},
		{"changes/s", "by how much tokens grow: a grant and a release are two"},
		{"≥", "at least: of a large table, free locks aren't read"},
	}

	lines := []string{""}
	for _, r := range rows {
		lines = append(lines, " "+heading.Render(fit(r[0], 18))+" "+r[1])
	}

	return lines[:max(min(len(lines), n), 0)]
}
