package top

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"

	"github.com/ismurov/pglocker"
)

// freeing is the question before a lock is released by force: for which reason, and whether the user is sure.
type freeing struct {
	row    Row
	hold   Hold
	reason textinput.Model
	// sure: the reason was given, and the user is asked again.
	sure bool
}

// freedMsg is what came of a release by force.
type freedMsg struct {
	what string
	err  error
}

// forceLimit is how long a release may take.
const forceLimit = 10 * time.Second

// free asks about the chosen hold.
func (m *model) free() tea.Cmd {
	var row *Row

	h := &Hold{}

	if m.opened != nil {
		row, h = &m.opened.row, m.opened.hold()
	} else if row = m.row(); row != nil && len(row.Holds) > 0 {
		h = &row.Holds[0]
	} else {
		h = nil
	}

	switch {
	case row == nil:
		return nil
	case h == nil:
		m.say(false, "Nothing to free: "+printable(row.Name)+" isn't held.")

		return nil
	case m.opened == nil && len(row.Holds) > 1:
		cmd := m.open()
		m.say(false, "Several hold it: choose one with ↑↓, then f.")

		return cmd
	}

	in := newInput()
	in.SetWidth(max(m.width-12, 8))
	m.freeing = &freeing{row: *row, hold: *h, reason: in}

	return m.freeing.reason.Focus()
}

func (m *model) pressFreeing(msg tea.KeyPressMsg) tea.Cmd {
	f := m.freeing

	switch k := msg.String(); {
	case k == "esc", f.sure && k != "y":
		m.freeing = nil
		m.say(false, "Nothing was freed.")

		return nil
	case f.sure:
		m.freeing = nil
		m.say(false, "Freeing "+f.what()+"…")

		return m.force(f)
	case k == "enter":
		f.sure = strings.TrimSpace(f.reason.Value()) != ""

		return nil
	}

	return m.edit(msg)
}

func (m *model) force(f *freeing) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, forceLimit)
		defer cancel()

		err := m.table.ForceRelease(ctx, f.hold.LockID, f.hold.Token, strings.TrimSpace(f.reason.Value()))

		return freedMsg{fmt.Sprintf("%s, token %d", f.what(), f.hold.Token), err}
	}
}

func (m *model) freed(msg freedMsg) tea.Cmd {
	switch {
	case msg.err == nil:
		m.say(false, "Freed "+msg.what+".")
	case errors.Is(msg.err, pglocker.ErrWrongGeneration):
		m.say(true, "Not freed: it was granted or released since. Look again.")
	case errors.Is(msg.err, pglocker.ErrUnknownOutcome):
		m.say(true, "The reply was lost: look whether "+msg.what+", is free.")
	default:
		m.say(true, "Not freed: "+short(msg.err))
	}

	if m.opened != nil {
		return tea.Batch(m.lookSoon(), m.lookAt(m.opened))
	}

	return m.lookSoon()
}

// say tells the user something, on the line above the keys.
func (m *model) say(failed bool, text string) { m.note, m.noteBad = text, failed }

// what names what is freed.
func (f *freeing) what() string {
	name := kindName(f.row.Kind) + " " + printable(f.row.Name)

	switch {
	case f.row.single():
		return name
	case f.hold.Slot == 0:
		return name + ", its writer"
	case f.row.Kind == pglocker.KindRWLock:
		return fmt.Sprintf("%s, reader %d", name, f.hold.Slot)
	}

	return fmt.Sprintf("%s, slot %d", name, f.hold.Slot)
}

// dialog draws the question.
func (m *model) dialog() []string {
	f := m.freeing
	who := holder(f.hold.Owner)

	if who == "" {
		who = "a holder that isn't known"
	}

	lines := []string{
		warn.Render(fit(" Free "+f.what()+"?", m.width)),
		fit(fmt.Sprintf(" Held by %s, token %d.", who, f.hold.Token), m.width),
		faint.Render(fit(" It isn't asked: it works on until its next renewal. Stop it first if you can.", m.width)),
	}

	if m.height < 10 {
		lines = lines[:1]
	}

	if f.sure {
		return append(lines, fit(" Reason: "+printable(f.reason.Value()), m.width), warn.Render(" Free it? y/n"))
	}

	return append(lines, bold.Render(" Reason: ")+f.reason.View())
}
