package top

import (
	"cmp"
	"context"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/ismurov/pglocker"
)

// opened is a row that the user has opened. It is looked at by itself, as often as its own cost allows.
type opened struct {
	// row is as it was last seen, and gone if it isn't in the table.
	row  Row
	gone bool
	// slot is the number of the chosen hold's slot, and at its place.
	slot, at int

	history historyOf
	// skip is how many of the newest events are scrolled away.
	skip int

	// turn counts the looks at it. Only the last one counts: others began before something was done.
	turn int
	pace pace
	err  error
}

// historyOf is the newest events of a row of the table, the last first.
type historyOf struct {
	lockID string
	events []pglocker.Event
	// more: there may be older ones.
	more bool
	err  error
}

type (
	// openMsg begins a look at the opened row.
	openMsg struct {
		of   *opened
		turn int
	}
	// openedMsg is its result.
	openedMsg struct {
		of      *opened
		turn    int
		row     *Row
		history historyOf
		pace    pace
		err     error
	}
)

// open opens the chosen row.
func (m *model) open() tea.Cmd {
	r := m.row()
	if r == nil {
		return nil
	}

	m.opened = &opened{row: *r, pace: pace{interval: m.pace.interval, limit: firstLimit}}
	m.opened.choose(0)

	return m.lookAt(m.opened)
}

// lookAt begins a look at the opened row.
func (m *model) lookAt(o *opened) tea.Cmd {
	o.turn++
	row, now, lockID, p := o.row, m.databaseNow(), o.lockID(), o.pace
	msg := openedMsg{of: o, turn: o.turn}

	return func() tea.Msg {
		msg.err = p.look(m.ctx, func(ctx context.Context) (err error) {
			if msg.row, err = readRow(ctx, m.table, &row, now); err != nil {
				return err
			}

			msg.history = readHistory(ctx, m.table, lockID, now)

			return ctx.Err()
		})
		msg.pace = p

		return msg
	}
}

func (m *model) updateOpened(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case openMsg:
		if msg.of == m.opened && msg.turn == msg.of.turn {
			return m.lookAt(msg.of)
		}
	case openedMsg:
		o := msg.of
		if o != m.opened || msg.turn != o.turn {
			return nil
		}

		o.err, o.pace = msg.err, msg.pace

		if msg.err == nil {
			o.history = msg.history
			o.gone = msg.row == nil

			if msg.row != nil {
				o.row = *msg.row
			}

			o.choose(0)
		}

		return tea.Tick(o.pace.rest(), func(time.Time) tea.Msg { return openMsg{o, msg.turn} })
	}

	return nil
}

func (m *model) pressOpened(msg tea.KeyPressMsg) tea.Cmd {
	o := m.opened

	switch msg.String() {
	case "esc", "left", "h", "backspace":
		m.opened = nil
	case "up", "k":
		return m.chooseHold(-1)
	case "down", "j":
		return m.chooseHold(1)
	case "pgdown", "space":
		o.skip = min(o.skip+m.height/2, max(len(o.history.events)-1, 0))
	case "pgup":
		o.skip = max(o.skip-m.height/2, 0)
	case "f":
		return m.free()
	}

	return nil
}

// chooseHold chooses another hold, and reads its history.
func (m *model) chooseHold(n int) tea.Cmd {
	before := m.opened.slot
	if m.opened.choose(n); m.opened.slot == before {
		return nil
	}

	return m.lookAt(m.opened)
}

// choose moves to another hold. With n = 0 it finds the chosen one again.
func (o *opened) choose(n int) {
	holds := o.row.Holds
	if len(holds) == 0 {
		o.at, o.slot = 0, 0

		return
	}

	if i := slices.IndexFunc(holds, func(h Hold) bool { return h.Slot == o.slot }); i >= 0 {
		o.at = i
	}

	before := o.at
	o.at = min(max(o.at+n, 0), len(holds)-1)
	o.slot = holds[o.at].Slot

	if o.at != before {
		o.skip = 0
	}
}

// hold is the chosen one, nil if the row is free.
func (o *opened) hold() *Hold {
	if len(o.row.Holds) == 0 || o.gone {
		return nil
	}

	return &o.row.Holds[min(o.at, len(o.row.Holds)-1)]
}

// lockID is the row whose history is shown, "" if there is none: a recipe of which nothing is held.
func (o *opened) lockID() string {
	if h := o.hold(); h != nil {
		return h.LockID
	}

	if o.row.single() {
		return o.row.prefix()
	}

	return ""
}

// readRow reads one row anew. It returns nil if it is gone.
func readRow(ctx context.Context, table Table, r *Row, now time.Time) (*Row, error) {
	f := newFold(Query{}, func(string, int64) {})
	found := &Row{Kind: r.Kind, Name: r.Name}
	seen := false

	for status, err := range table.Locks(ctx, pglocker.LocksFilter{Prefix: r.prefix()}) {
		if err != nil {
			return nil, err
		}

		if k, _, ok := parse(status.LockID); !ok || k != r.key() {
			continue
		}

		f.add(status, now)

		if seen = true; r.single() {
			break
		}
	}

	if !seen {
		return nil, nil
	}

	if row := f.rows[r.key()]; row != nil { // a lock that is free has none
		found = row
	}

	slices.SortFunc(found.Holds, func(a, b Hold) int { return cmp.Compare(a.Slot, b.Slot) })

	return found, nil
}

// historyShown is how many events are kept of a row.
const historyShown = 100

// readHistory reads the newest events of a row. They can be read from a time on only, so it goes back further and
// further until there are enough.
func readHistory(ctx context.Context, table Table, lockID string, now time.Time) historyOf {
	h := historyOf{lockID: lockID}
	if lockID == "" {
		return h
	}

	for _, back := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour, 0} {
		since := now.Add(-back)
		if back == 0 {
			since = time.Time{}
		}

		if h.read(ctx, table, since); h.err != nil || h.more || len(h.events) == historyShown {
			break
		}
	}

	slices.Reverse(h.events)

	return h
}

// read reads the events since then, and keeps the newest.
func (h *historyOf) read(ctx context.Context, table Table, since time.Time) {
	h.events, h.more = nil, false

	for event, err := range table.History(ctx, h.lockID, since) {
		if err != nil {
			h.err = err

			return
		}

		if len(h.events) == historyShown {
			h.events, h.more = h.events[1:], true
		}

		h.events = append(h.events, event)
	}
}
