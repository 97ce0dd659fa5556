package top

import (
	"context"
	"time"

	"charm.land/bubbles/v2/key"
	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"
)

// model is the state of the view. Update changes it by messages, View draws it; looks at the database are commands
// that bubbletea runs beside them, and whose results are messages.
type model struct {
	ctx    context.Context
	table  Table
	title  string
	looker *Looker // of the look that is under way
	pace   pace

	width, height int
	// now is the time of the last tick or key.
	now time.Time

	query Query
	// filtering: the user types the filter.
	filtering bool
	input     textinput.Model

	// last is the last snapshot, nil before the first, and lastAt is when it was begun, by this machine's clock.
	last   *Snapshot
	lastAt time.Time
	// lastQuery is what it was asked for.
	lastQuery Query
	// lookErr is why the last look failed, if it did.
	lookErr error
	// began is when the look that is under way began, zero if there is none.
	began time.Time
	// turn counts the times that a next look was set. Timers of earlier turns are void.
	turn int

	rows []Row // of last, filtered and sorted anew
	// chosen is the row of the cursor, wherever it moves, and at its place when it was last seen.
	chosen rowKey
	at     int
	top    int // the first row on the screen

	opened  *opened
	freeing *freeing
	help    bool
	// note is what came of the last action. noteBad: it failed.
	note    string
	noteBad bool
}

type (
	tickMsg struct{}
	// lookMsg begins a look.
	lookMsg struct{ turn int }
	// lookedMsg is the result of one.
	lookedMsg struct {
		snapshot *Snapshot
		query    Query
		pace     pace
		err      error
	}
)

func newModel(ctx context.Context, table Table, o Options) *model {
	return &model{
		ctx: ctx, table: table, title: o.Title, looker: NewLooker(table), pace: pace{interval: o.Interval, limit: firstLimit},
		query: o.Query, input: newInput(), now: time.Now(), width: 80, height: 24,
	}
}

// newInput is a line for text. Its key to paste would start a program; terminals paste by themselves.
func newInput() textinput.Model {
	in := textinput.New()
	in.Prompt = ""
	in.CharLimit = 500
	in.KeyMap.Paste = key.NewBinding()

	styles := in.Styles()
	styles.Cursor.Blink = false
	in.SetStyles(styles)

	return in
}

func (m *model) Init() tea.Cmd { return tea.Batch(m.look(), tick()) }

// tick redraws ages and the rest of leases.
func tick() tea.Cmd {
	return tea.Tick(time.Second, func(time.Time) tea.Msg { return tickMsg{} })
}

// look begins a look, unless one is under way.
func (m *model) look() tea.Cmd {
	if !m.began.IsZero() {
		return nil
	}

	m.began = time.Now()
	m.turn++
	q, p := m.asks(), m.pace

	return func() tea.Msg {
		var s *Snapshot

		err := p.look(m.ctx, func(ctx context.Context) (err error) {
			s, err = m.looker.Look(ctx, q)

			return err
		})

		return lookedMsg{s, q, p, err}
	}
}

// asks is what a look is asked for: all rows, if the limit allows that, so that a change of the filter needs no look.
func (m *model) asks() Query {
	q := m.query

	if m.last == nil || m.last.Totals.rows() <= q.Limit {
		q.Text, q.Kind = "", ""
	}

	return q
}

// complete: all rows were kept by the last look.
func (m *model) complete() bool {
	return m.last != nil && m.last.Hidden == 0 && m.lastQuery.Text == "" && m.lastQuery.Kind == ""
}

// lookSoon begins the next look at once where looks are fast. A large table keeps its rest.
func (m *model) lookSoon() tea.Cmd {
	if !m.began.IsZero() || m.pace.rest() > m.pace.interval {
		return nil
	}

	return m.look()
}

func (m *model) looked(msg lookedMsg) tea.Cmd {
	m.lookErr, m.pace = msg.err, msg.pace

	if msg.err == nil {
		m.last, m.lastAt, m.lastQuery = msg.snapshot, m.began, msg.query
		m.arrange()
	}

	m.began = time.Time{}

	if msg.err == nil && !m.complete() && m.asks() != msg.query { // the user asked for something else meanwhile
		if cmd := m.lookSoon(); cmd != nil {
			return cmd
		}
	}

	turn := m.turn

	return tea.Tick(m.pace.rest(), func(time.Time) tea.Msg { return lookMsg{turn} })
}

// Update is called with each message, one after the other.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.now = time.Now()

	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.scroll()
	case tickMsg:
		return m, tick()
	case lookMsg:
		if msg.turn == m.turn {
			return m, m.look()
		}
	case lookedMsg:
		return m, m.looked(msg)
	case openMsg, openedMsg:
		return m, m.updateOpened(msg)
	case freedMsg:
		return m, m.freed(msg)
	case tea.KeyPressMsg:
		return m, m.press(msg)
	case tea.PasteMsg:
		return m, m.edit(msg)
	}

	return m, nil
}

// press obeys a key.
func (m *model) press(msg tea.KeyPressMsg) tea.Cmd {
	switch msg.String() {
	case "ctrl+c":
		return tea.Quit
	case "ctrl+z":
		return tea.Suspend
	}

	m.note = ""

	switch {
	case m.freeing != nil:
		return m.pressFreeing(msg)
	case m.filtering:
		return m.pressFilter(msg)
	case m.help:
		m.help = false

		return nil
	}

	switch msg.String() {
	case "q":
		return tea.Quit
	case "?":
		m.help = true

		return nil
	}

	if m.opened != nil {
		return m.pressOpened(msg)
	}

	return m.pressList(msg)
}

func (m *model) pressList(msg tea.KeyPressMsg) tea.Cmd {
	switch k := msg.String(); k {
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup", "ctrl+b":
		m.move(-m.page())
	case "pgdown", "ctrl+f", "space":
		m.move(m.page())
	case "home", "g":
		m.move(-len(m.rows))
	case "end", "G":
		m.move(len(m.rows))
	case "enter", "right", "l":
		return m.open()
	case "f":
		return m.free()
	case "s":
		m.query.Order = (m.query.Order + 1) % orders

		return m.asked()
	case "1", "2", "3", "4", "5":
		m.query.Kind = tabs[k[0]-'1'].kind

		return m.asked()
	case "r":
		return m.look()
	case "/":
		m.filtering = true
		m.input.SetValue(m.query.Text)
		m.input.CursorEnd()

		return m.input.Focus()
	case "esc":
		m.query.Text, m.query.Kind = "", ""

		return m.asked()
	}

	return nil
}

// pressFilter: the list follows each key.
func (m *model) pressFilter(msg tea.KeyPressMsg) tea.Cmd {
	switch msg.String() {
	case "enter":
		m.filtering = false

		return nil
	case "esc":
		m.filtering = false
		m.query.Text = ""

		return m.asked()
	case "up":
		m.move(-1)

		return nil
	case "down":
		m.move(1)

		return nil
	}

	return m.edit(msg)
}

// edit changes the line that the user types, if there is one.
func (m *model) edit(msg tea.Msg) (cmd tea.Cmd) {
	switch {
	case m.freeing != nil && !m.freeing.sure:
		m.freeing.reason, cmd = m.freeing.reason.Update(msg)
	case m.filtering:
		m.input, cmd = m.input.Update(msg)

		if text := m.input.Value(); text != m.query.Text {
			m.query.Text = text

			return tea.Batch(cmd, m.asked())
		}
	}

	return cmd
}

// asked shows what the query asks for now. If rows are missing for that, a look finds them.
func (m *model) asked() tea.Cmd {
	m.arrange()

	if m.complete() {
		return nil
	}

	return m.lookSoon()
}

// arrange filters and sorts the rows of the last snapshot.
func (m *model) arrange() {
	if m.last == nil {
		return
	}

	m.rows = m.query.arrange(m.last.Rows)

	if i := m.index(); i >= 0 {
		m.at = i
	}

	m.move(0) // if the chosen row is gone, the cursor stays where it is
}

// stale says since when the data is stale, and why. It isn't while looks succeed.
func (m *model) stale() (why string, stale bool) {
	const patience = 3 * time.Second

	switch {
	case m.lookErr != nil:
		return short(m.lookErr), true
	case !m.began.IsZero() && m.last != nil && m.now.Sub(m.began) > max(patience, 2*m.pace.took):
		return "no answer for " + span(m.now.Sub(m.began)), true
	}

	return "", false
}

// databaseNow is the time by the database's clock.
func (m *model) databaseNow() time.Time {
	if m.last == nil {
		return m.now
	}

	return m.last.At.Add(m.now.Sub(m.lastAt))
}
