package ui

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

// groupRows is how many rows of semaphores or read-write locks a page reads at most.
const groupRows = 5_000

// Parts of recipes, behind the last colon of an id. The others are the numbers of slots.
const (
	partGate   = "gate"
	partWriter = "w"
	partIntent = "intent"
)

// group is a semaphore or a read-write lock.
type group struct {
	Kind  pglocker.Kind
	Name  string
	Slots []slot // by number
	Held  int    // of the slots
	// Waits: a call waits at the gate.
	Waits bool
	// Writer is the row of a read-write lock's writer, nil if there was never one. Intent: a writer waits for
	// readers.
	Writer *row
	Intent bool
}

// slot is a permit of a semaphore, or a reader.
type slot struct {
	row
	N int
}

func (g *group) URL() string { return groupURL(g.Kind, g.Name) }

// Text says what the squares show.
func (g *group) Text() string {
	if g.Kind == pglocker.KindRWLock {
		return strconv.Itoa(g.Held) + " reading"
	}

	return strconv.Itoa(g.Held) + " of " + strconv.Itoa(len(g.Slots)) + " slots held"
}

// Writing: a writer has the read-write lock.
func (g *group) Writing() bool { return g.Writer != nil && g.Writer.Held }

// Mode is what a read-write lock is used for.
func (g *group) Mode() string {
	switch {
	case g.Writing():
		return "writing"
	case g.Held > 0:
		return "reading"
	default:
		return "free"
	}
}

// groupList is one page of groups.
type groupList struct {
	Groups []*group
	Next   string
	// Held and Slots are the sums.
	Held, Slots int
}

func (g *group) add(l row) {
	part := l.Name[strings.LastIndexByte(l.Name, ':')+1:]

	switch part {
	case partGate:
		g.Waits = l.Waits()
	case partWriter:
		g.Writer = &l
	case partIntent:
		g.Intent = l.Held
	default:
		n, err := strconv.Atoi(part)
		if err != nil {
			return // a row by hand
		}

		if l.Held {
			g.Held++
		}

		g.Slots = append(g.Slots, slot{l, n})
	}
}

// groups lists a page of semaphores or of read-write locks. All rows of one stand together, or nearly: its name
// begins them.
func (r *reader) groups(kind pglocker.Kind, prefix, after string, most int) (*groupList, error) {
	var (
		list   = new(groupList)
		byName = map[string]*group{}
		last   string
		begins = map[string]string{} // by name: the id before the group's first
		n      int
	)

	for l, err := range r.rows(pglocker.LocksFilter{
		Kind: kind, Prefix: pglocker.ReservedPrefix + string(kind) + ":" + prefix, After: after,
	}) {
		if err != nil {
			return nil, err
		}

		name := l.Name[:max(strings.LastIndexByte(l.Name, ':'), 0)]
		g := byName[name]

		if n++; n > groupRows && len(list.Groups) > 1 { // the last one may be there in part
			cut := list.Groups[len(list.Groups)-1]
			list.Groups, list.Next = list.Groups[:len(list.Groups)-1], begins[cut.Name]

			break
		}

		if g == nil {
			if len(list.Groups) == most {
				list.Next = last

				break
			}

			g = &group{Kind: kind, Name: name}
			byName[name], begins[name] = g, last
			list.Groups = append(list.Groups, g)
		}

		g.add(l)

		last = l.LockID
	}

	for _, g := range list.Groups {
		slices.SortFunc(g.Slots, func(a, b slot) int { return cmp.Compare(a.N, b.N) })

		list.Held += g.Held
		list.Slots += len(g.Slots)
	}

	return list, nil
}

// groupPage is a semaphore or a read-write lock with the history of its slots.
type groupPage struct {
	*group
	Timeline *timeline
	past     []pastOf
	since    time.Time
}

// Missing: there is no history to show.
func (p *groupPage) Missing() bool { return len(p.past) > 0 && p.past[0].missing }

// Group is the group alone.
func (p *groupPage) Group() *group { return p.group }

// Rows are the rows that are held, or were not released.
func (p *groupPage) Rows() (rows []row) {
	if p.Writer != nil && p.Writer.State() != "free" {
		rows = append(rows, *p.Writer)
	}

	for _, s := range p.Slots {
		if s.State() != "free" {
			rows = append(rows, s.row)
		}
	}

	return rows
}

// laneRows is how many slots have a lane in the timeline.
const laneRows = 16

// group reads one semaphore or read-write lock.
func (r *reader) group(q query, last any) (*groupPage, error) {
	g := &group{Kind: q.kind, Name: q.name}
	prefix := pglocker.ReservedPrefix + string(q.kind) + ":" + q.name + ":"

	for l, err := range r.rows(pglocker.LocksFilter{Kind: q.kind, Prefix: prefix}) {
		if err != nil {
			return nil, err
		}

		if !strings.Contains(strings.TrimPrefix(l.LockID, prefix), ":") { // else it is of another name
			g.add(l)
		}
	}

	slices.SortFunc(g.Slots, func(a, b slot) int { return cmp.Compare(a.N, b.N) })

	page := &groupPage{group: g}
	axis := newAxis(r.now, q.span)
	before, _ := last.(*groupPage)

	var lanes []lane

	draw := func(label string, l row) error {
		var known *pastOf

		if before != nil && before.since.Equal(axis.Since) {
			for i := range before.past {
				if before.past[i].status.LockID == l.LockID {
					known = &before.past[i]
				}
			}
		}

		past, err := r.past(l.LockStatus, axis, known)
		if err != nil {
			return err
		}

		page.past = append(page.past, *past)
		lanes = append(lanes, lane{Label: label, URL: l.URL(), tenures: past.tenures(r.now, axis)})

		return nil
	}

	if g.Writer != nil {
		if err := draw("writer", *g.Writer); err != nil {
			return nil, err
		}
	}

	for _, s := range g.Slots[:min(len(g.Slots), laneRows)] {
		label := "slot "
		if g.Kind == pglocker.KindRWLock {
			label = "reader "
		}

		if err := draw(label+strconv.Itoa(s.N), s.row); err != nil {
			return nil, err
		}
	}

	page.since = axis.Since
	page.Timeline = r.draw(axis, lanes)

	if more := len(g.Slots) - laneRows; more > 0 && page.Timeline != nil {
		page.Timeline.Note = strconv.Itoa(more) + " more slots have no lane here."
	}

	return page, nil
}

// election is one election.
type election struct {
	row
	// Before are the terms before, the last one first.
	Before []pglocker.Term
}

// electionList is one page of elections.
type electionList struct {
	Elections []*election
	Next      string
	Led       int
}

// termPrefix begins the ids of the rows in which leaders write their terms down.
const termPrefix = pglocker.ReservedPrefix + "term:"

// termsShown is how many terms before the present one are shown, and termRows how many rows are read for that.
const (
	termsShown = 5
	termRows   = 4_000
)

// elections lists a page of elections, with the terms before.
func (r *reader) elections(prefix, after string, most int) (*electionList, error) {
	list := new(electionList)
	byName := map[string]*election{}

	for l, err := range r.rows(pglocker.LocksFilter{
		Kind: pglocker.KindElection, Prefix: pglocker.ReservedPrefix + string(pglocker.KindElection) + ":" + prefix, After: after,
	}) {
		if err != nil {
			return nil, err
		}

		if len(list.Elections) == most {
			list.Next = list.Elections[most-1].LockID

			break
		}

		e := &election{row: l}
		list.Elections = append(list.Elections, e)
		byName[l.Name] = e

		if l.Held {
			list.Led++
		}
	}

	if len(list.Elections) == 0 {
		return list, nil
	}

	n, end := 0, termPrefix+list.Elections[len(list.Elections)-1].Name+";" // behind the colon

	for l, err := range r.rows(pglocker.LocksFilter{
		Kind: pglocker.KindInternal, Prefix: termPrefix + prefix, After: termPrefix + list.Elections[0].Name,
	}) {
		if err != nil {
			return nil, err
		}

		if n++; n > termRows {
			r.note("There are too many elections on this page to show the terms before of all of them.")

			break
		}

		if l.LockID > end {
			break
		}

		if e := byName[electionOf(l.LockID)]; e != nil {
			e.addTerm(l)
		}
	}

	for _, e := range list.Elections {
		e.sortTerms(termsShown)
	}

	return list, nil
}

// electionOf is the name of the election whose term is in a row of that id.
func electionOf(id string) string {
	name := strings.TrimPrefix(id, termPrefix)

	return name[:max(strings.LastIndexByte(name, ':'), 0)]
}

// addTerm adds a term from a row of the log of terms. The present one isn't before.
func (e *election) addTerm(l row) {
	if !e.Held || l.Generation != e.Generation {
		e.Before = append(e.Before, pglocker.Term{Token: l.Generation, Leader: l.Owner, Since: l.AcquiredAt})
	}
}

func (e *election) sortTerms(most int) {
	slices.SortFunc(e.Before, func(a, b pglocker.Term) int { return cmp.Compare(b.Token, a.Token) })
	e.Before = e.Before[:min(len(e.Before), most)]
}
