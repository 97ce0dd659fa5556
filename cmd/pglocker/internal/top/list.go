package top

import (
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/ismurov/pglocker"
)

// tabs are the kinds of rows, each with the number key that shows it alone.
var tabs = [...]struct {
	kind pglocker.Kind
	text func(t *Totals) string
}{
	{"", func(t *Totals) string { return "all " + count(t.rows()) }},
	{pglocker.KindLock, func(t *Totals) string { return "locks " + count(t.Locks) }},
	{pglocker.KindElection, func(t *Totals) string { return fmt.Sprintf("elections %s/%s led", count(t.Led), count(t.Elections)) }},
	{pglocker.KindSemaphore, func(t *Totals) string { return "semaphores " + count(t.Semaphores) }},
	{pglocker.KindRWLock, func(t *Totals) string { return "rw locks " + count(t.RWLocks) }},
}

// index is the place of the chosen row, -1 if it is gone.
func (m *model) index() int {
	for i := range m.rows {
		if m.rows[i].key() == m.chosen {
			return i
		}
	}

	return -1
}

// move moves the cursor by n rows.
func (m *model) move(n int) {
	if len(m.rows) == 0 {
		m.at, m.top, m.chosen = 0, 0, rowKey{}

		return
	}

	m.at = min(max(m.at+n, 0), len(m.rows)-1)
	m.chosen = m.rows[m.at].key()
	m.scroll()
}

// row is the chosen row, nil if there is none.
func (m *model) row() *Row {
	if i := m.index(); i >= 0 {
		return &m.rows[i]
	}

	return nil
}

// page is how many rows the screen has room for.
func (m *model) page() int { return max(m.height-len(m.above())-len(m.below()), 1) }

// scroll keeps the cursor on the screen, and the screen full.
func (m *model) scroll() {
	page := m.page()
	m.top = min(max(m.top, m.at-page+1), m.at)
	m.top = max(min(m.top, len(m.rows)-page), 0)
}

// above is what stands above the rows.
func (m *model) above() []string {
	lines := m.head()

	if m.height >= 7 {
		lines = append(lines, m.totals())
	}

	if m.height >= 9 {
		lines = append(lines, m.tabs())
	}

	lines = append(lines, m.banners()...)

	if m.height >= 6 {
		lines = append(lines, m.columns().head(m.query.Order))
	}

	return lines
}

// head is the first line.
func (m *model) head() []string {
	if m.height < 4 {
		return nil
	}

	state := m.state()
	title := badge.Render(" pglocker top ") + " " + bold.Render(printable(m.title))

	return []string{fit(title, m.width-ansi.StringWidth(state)-1) + " " + state}
}

// liveAge is the age up to which data isn't worth a word about it.
const liveAge = 3 * time.Second

// slowLook is how long a look takes that is worth a word.
const slowLook = time.Second

// state says how old the data is.
func (m *model) state() string {
	_, stale := m.stale()

	switch {
	case m.last == nil && stale:
		return bad.Render("▲ no data yet ")
	case m.last == nil:
		return faint.Render("reading the table for " + span(m.now.Sub(m.began)) + " ")
	}

	age := m.now.Sub(m.lastAt)

	switch {
	case stale:
		return bad.Render(fmt.Sprintf("▲ stale since %s, for %s ", m.last.At.UTC().Format("15:04:05Z"), span(age)))
	case age < liveAge:
		return good.Render("● live ")
	case m.last.Took >= slowLook:
		return good.Render("● ") + faint.Render(fmt.Sprintf("read all rows in %s, %s ago ", span(m.last.Took), span(age)))
	}

	return good.Render("● ") + faint.Render("read "+span(age)+" ago ")
}

func (m *model) totals() string {
	if m.last == nil {
		return ""
	}

	t := &m.last.Totals
	waited := count(t.Waited)

	if t.Waited > 0 {
		waited = warn.Render(waited)
	} else {
		waited = bold.Render(waited)
	}

	if m.last.NoOwners {
		waited = "?"
	}

	parts := []string{
		bold.Render(count(t.Held)) + faint.Render(" held"),
		waited + faint.Render(" waited for"),
		bold.Render(perSecond(m.last)) + faint.Render(" changes/s"),
	}

	if t.Oldest != nil {
		parts = append(parts, faint.Render("oldest hold ")+bold.Render(span(m.databaseNow().Sub(t.Oldest.Since)))+" "+printable(t.Oldest.Name))
	}

	return fit(" "+strings.Join(parts, "   "), m.width)
}

func (m *model) tabs() string {
	if m.last == nil {
		return ""
	}

	var texts []string

	for i, tab := range tabs {
		text := fmt.Sprintf(" %d %s ", i+1, tab.text(&m.last.Totals))
		if tab.kind == m.query.Kind {
			text = selected.Render(text)
		} else {
			text = faint.Render(text)
		}

		texts = append(texts, text)
	}

	return fit(strings.Join(texts, ""), m.width)
}

// banners say what is wrong, and what can't be shown.
func (m *model) banners() (lines []string) {
	add := func(style lipgloss.Style, text string) { lines = append(lines, style.Render(fit(" "+text, m.width))) }

	if why, stale := m.stale(); stale {
		add(bad, "! Trying again: "+why)
	}

	if m.last != nil && m.last.NoOwners && m.height >= 12 {
		add(warn, noOwnersText)
	}

	if m.last != nil && m.last.Standby && m.height >= 12 {
		add(warn, standbyText)
	}

	return lines
}

// below is what stands below the rows.
func (m *model) below() (lines []string) {
	switch {
	case m.freeing != nil:
		lines = append(lines, m.dialog()...)
	case m.filtering:
		lines = append(lines, warn.Render(" / ")+m.input.View())
	case m.note != "":
		style := good
		if m.noteBad {
			style = bad
		}

		lines = append(lines, style.Render(fit(" "+m.note, m.width)))
	case m.query.Text != "" && m.opened == nil:
		lines = append(lines, fit(warn.Render(" / ")+printable(m.query.Text)+faint.Render("   esc shows all"), m.width))
	}

	if m.height < 5 {
		return lines
	}

	return append(lines, m.keys())
}

// keys is the last line.
func (m *model) keys() string {
	var keys []string

	switch {
	case m.freeing != nil && m.freeing.sure:
		keys = []string{"y", "free it", "any other key", "cancel"}
	case m.freeing != nil:
		keys = []string{"⏎", "go on", "esc", "cancel"}
	case m.filtering:
		keys = []string{"⏎", "keep", "esc", "show all", "↑↓", "move"}
	case m.help:
		keys = []string{"any key", "back"}
	case m.opened != nil:
		keys = []string{"esc", "back", "↑↓", "choose", "f", "free", "?", "help", "q", "quit"}
	default:
		keys = []string{"↑↓", "move", "⏎", "open", "/", "filter", "s", "sort", "f", "free", "?", "help", "q", "quit"}
	}

	var texts []string
	for i := 0; i < len(keys); i += 2 {
		texts = append(texts, heading.Render(keys[i])+faint.Render(" "+keys[i+1]))
	}

	line := " " + strings.Join(texts, "  ")
	right := ""

	if m.opened == nil && m.last != nil {
		right = m.place()
	}

	return fit(line, m.width-ansi.StringWidth(right)) + right
}

// place says which rows are on the screen, of how many.
func (m *model) place() string {
	n := len(m.rows)
	text := count(n)

	if n > 0 {
		text = fmt.Sprintf("%s of %s", count(m.at+1), count(n))
	}

	if m.last.Hidden > 0 {
		text += fmt.Sprintf(", %s not shown", count(m.last.Hidden))
	}

	return faint.Render(text + " ")
}

// list draws the rows on n lines.
func (m *model) list(n int) []string {
	lines := make([]string, 0, n)
	cols := m.columns()
	now := m.databaseNow()

	for i := m.top; i < len(m.rows) && len(lines) < n; i++ {
		lines = append(lines, cols.line(&m.rows[i], i == m.at, now))
	}

	if len(m.rows) == 0 && m.last != nil && n > 0 {
		text := "Nothing is held."
		if m.query.Text != "" || m.query.Kind != "" {
			text = "Nothing that is held matches."
		}

		lines = append(lines, faint.Render(fit("  "+text, m.width)))
	}

	return lines
}
