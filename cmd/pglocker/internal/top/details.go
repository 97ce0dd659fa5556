package top

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ismurov/pglocker"
)

// details draws the opened row on n lines.
func (m *model) details(n int) []string {
	o, now := m.opened, m.databaseNow()
	noOwners := m.last != nil && m.last.NoOwners

	lines := []string{"", " " + badge.Render(" "+kindName(o.row.Kind)+" ") + " " + bold.Render(printable(o.row.Name)), ""}
	add := func(label, text string) { lines = append(lines, " "+faint.Render(fit(label, 9))+" "+text) }

	if o.err != nil {
		lines = append(lines, bad.Render(" ! "+short(o.err)))
	}

	switch h := o.hold(); {
	case o.gone:
		add("state", "gone: the row was deleted")
	case h == nil:
		add("state", holders(&o.row, noOwners))
	case o.row.single():
		m.addHold(add, h, noOwners, now)
	}

	m.addRecipe(add, o)

	switch {
	case o.gone || noOwners:
	case o.row.Waited:
		add("waiters", warn.Render("yes")+faint.Render(", or there were some in the last 10 s"))
	default:
		add("waiters", "none that listens"+faint.Render(", but perhaps in the holder's process"))
	}

	if !o.row.single() {
		lines = append(lines, m.holdLines(o, noOwners, now, max((n-len(lines))/2, 3))...)
	}

	lines = append(lines, m.historyLines(o, max(n-len(lines), 0))...)

	for i := range lines {
		lines[i] = fit(lines[i], m.width)
	}

	return lines[:min(len(lines), n)]
}

// addHold tells of the only hold of a row.
func (m *model) addHold(add func(label, text string), h *Hold, noOwners bool, now time.Time) {
	switch {
	case noOwners:
		add("holder", "not known: the table has three columns")
	case h.Owner == "":
		add("holder", "none: it was released, and a minimum hold keeps it")
	default:
		add("holder", bold.Render(printable(h.Owner)))
	}

	add("token", fmt.Sprint(h.Token))

	if !h.Since.IsZero() {
		add("since", h.Since.UTC().Format("2006-01-02 15:04:05Z")+faint.Render("   for "+span(now.Sub(h.Since))))
	}

	add("lease", "ends in "+left(h.Until, now)+faint.Render(", unless it is renewed"))
}

func (m *model) addRecipe(add func(label, text string), o *opened) {
	switch o.row.Kind {
	case pglocker.KindSemaphore:
		add("slots", slots(&o.row))
		add("", faint.Render(fmt.Sprintf("%s were used at once at the most; the number of permits isn't stored", count(o.row.Slots))))
	case pglocker.KindRWLock:
		if n := len(o.row.Holds); n > 1 {
			add("readers", count(n))
		}
	}
}

// holdLines are the slots, or the readers or the writer, with a cursor.
func (m *model) holdLines(o *opened, noOwners bool, now time.Time, n int) []string {
	if len(o.row.Holds) == 0 || o.gone {
		return nil
	}

	lines := []string{"", heading.Render(fit("   SLOT    TOKEN       HELD    LEASE   HOLDER", m.width))}
	first := min(max(o.at-n+len(lines)+1, 0), len(o.row.Holds)-1)

	for i := first; i < len(o.row.Holds) && len(lines) < n; i++ {
		h := &o.row.Holds[i]
		name, since, who := fmt.Sprint(h.Slot), "–", printable(h.Owner)

		if h.Slot == 0 {
			name = "writer"
		}

		if !h.Since.IsZero() {
			since = span(now.Sub(h.Since))
		}

		if noOwners {
			who = "not known"
		}

		line := fit(fmt.Sprintf("%-6s  %-10d  %-6s  %-6s  %s", name, h.Token, since, left(h.Until, now), who), m.width-3)
		if i == o.at {
			line = selected.Render(" › " + line)
		} else {
			line = "   " + line
		}

		lines = append(lines, line)
	}

	return lines
}

// historyLines are the events, as many as there is room for.
func (m *model) historyLines(o *opened, n int) []string {
	title := "   HISTORY"
	if !o.row.single() && o.history.lockID != "" {
		title += " OF " + printable(o.history.lockID)
	}

	lines := []string{"", heading.Render(fit(title, m.width))}
	say := func(text string) []string { return append(lines, faint.Render(fit("   "+text, m.width))) }

	switch h := &o.history; {
	case h.lockID == "":
		return nil
	case errors.Is(h.err, pglocker.ErrHistoryNotFound):
		return say("There is none: this table has no history.")
	case h.err != nil:
		return say(short(h.err))
	case len(h.events) == 0:
		return say("No event.")
	}

	token := 1
	for _, e := range o.history.events {
		token = max(token, len(strconv.FormatInt(e.Token, 10)))
	}

	for _, e := range o.history.events[min(o.skip, len(o.history.events)):] {
		if len(lines) == n {
			break
		}

		text := fmt.Sprintf("   %s  %-9s  %*d  %s", e.At.UTC().Format("2006-01-02 15:04:05Z"), e.Kind, token, e.Token, holder(e.Owner))
		if e.Reason != "" {
			text += "  " + printable(e.Reason)
		}

		switch e.Kind {
		case pglocker.EventExpired, pglocker.EventForced:
			text = warn.Render(text)
		case pglocker.EventReleased, pglocker.EventDeleted:
			text = faint.Render(text)
		}

		lines = append(lines, text)
	}

	return lines
}
