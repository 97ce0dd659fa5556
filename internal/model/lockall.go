package model

import "fmt"

// This file is a model of its own, of the statement that takes several locks at once (store.grantAll): two
// rows, two clients that want both, in opposite orders, and one for each row alone. A statement goes step by
// step: its snapshot, one row lock after the other, the update with the commit. Nobody's lease ends, and no
// reply is lost: what is asked for is whether all or none are granted, to one client at a time, and whether
// statements can wait for each other.

// AllMutant is a statement that is wrong in one way.
type AllMutant int

// The mutants.
const (
	// AllAsBuilt is the statement as it is.
	AllAsBuilt AllMutant = iota
	// AllUncounted grants the rows that it could lock.
	AllUncounted
	// AllUnchecked counts a row that was free in the snapshot, whatever its newest version shows.
	AllUnchecked
	// AllUnlocked decides by the snapshot alone, and overwrites what was changed since.
	AllUnlocked
	// AllInLine waits for rows that others have locked, in the order in which the ids were given.
	AllInLine
)

const (
	allRows    = 2
	allClients = 4 // 0 and 1 want both rows, 2 the first, 3 the second
	allTries   = 2
)

type (
	// allRow is a row. holder and lock are client numbers plus one, or zero.
	allRow struct{ holder, lock uint8 }

	allClient struct {
		// step is 0 at rest, 1 after the snapshot, 2 and 3 after each row, 4 while it holds.
		step, tries uint8
		// locked are the rows that count.
		locked [allRows]bool
	}

	allState struct {
		rows    [allRows]allRow
		clients [allClients]allClient
	}
)

// CheckAll visits every order of steps. It returns how many states there are, and what is wrong in one of
// them, "" if nothing is.
func CheckAll(mutant AllMutant) (states int, wrong string) {
	var (
		visited = map[allState]struct{}{{}: {}}
		queue   = []allState{{}}
	)

	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]

		if wrong := s.wrong(); wrong != "" {
			return len(visited), fmt.Sprintf("%s: %+v", wrong, s)
		}

		stuck := true

		for c := range uint8(allClients) {
			next, moves := s.move(c, mutant)
			if !moves {
				continue
			}

			stuck = false

			if _, known := visited[next]; !known {
				visited[next] = struct{}{}
				queue = append(queue, next)
			}
		}

		for c := range s.clients {
			if stuck && (s.clients[c].step > 0 || s.clients[c].tries < allTries) {
				return len(visited), fmt.Sprintf("the clients wait for each other: %+v", s)
			}
		}
	}

	return len(visited), ""
}

// wrong is what the state breaks. Client c holds its rows from its grant to its release.
func (s *allState) wrong() string {
	for c := range uint8(allClients) {
		for i, row := range s.rows {
			wanted := wantsRow(c, uint8(i))

			switch held := row.holder == c+1; {
			case s.clients[c].step == 4 && wanted && !held:
				return fmt.Sprintf("client %d believes that it holds row %d", c, i)
			case s.clients[c].step < 4 && held:
				return fmt.Sprintf("client %d was granted row %d alone", c, i)
			}
		}
	}

	return ""
}

func wantsRow(c, row uint8) bool { return c < 2 || c-2 == row }

// order is the i-th row of a client that wants both.
func (m AllMutant) order(c, i uint8) uint8 {
	if m == AllInLine && c == 1 {
		return allRows - 1 - i
	}

	return i
}

// move is the next step of a client. It is false if there is none now.
func (s allState) move(c uint8, mutant AllMutant) (allState, bool) {
	cl := &s.clients[c]

	switch {
	case cl.step == 4:
		return s.release(c)
	case cl.step == 0 && cl.tries == allTries:
		return s, false
	case c >= 2:
		return s.takeOne(c)
	case cl.step == 0: // the snapshot
		cl.tries++

		for _, row := range s.rows {
			if row.holder != 0 {
				return s, true // refused: nothing is locked
			}
		}

		cl.step = 1

		return s, true
	case cl.step <= allRows && mutant != AllUnlocked:
		i := mutant.order(c, cl.step-1)
		row := &s.rows[i]

		if row.lock != 0 {
			if mutant == AllInLine {
				return s, false
			}

			cl.step++ // passed over

			return s, true
		}

		row.lock = c + 1
		cl.locked[i] = row.holder == 0 || mutant == AllUnchecked
		cl.step++

		return s, true
	default:
		return s.grantAll(c, mutant), true
	}
}

// grantAll is the update and the commit.
func (s allState) grantAll(c uint8, mutant AllMutant) allState {
	cl := &s.clients[c]
	all := cl.locked[0] && cl.locked[1] || mutant == AllUnlocked
	granted := 0

	for i := range s.rows {
		row := &s.rows[i]
		if all || mutant == AllUncounted && cl.locked[i] {
			row.holder = c + 1
			granted++
		}

		if row.lock == c+1 {
			row.lock = 0
		}
	}

	*cl = allClient{tries: cl.tries}
	if granted == allRows {
		cl.step = 4
	}

	return s
}

// takeOne is the whole statement for one row. It waits for a locked row.
func (s allState) takeOne(c uint8) (allState, bool) {
	row := &s.rows[c-2]
	if row.lock != 0 {
		return s, false
	}

	s.clients[c].tries++

	if row.holder == 0 {
		row.holder = c + 1
		s.clients[c].step = 4
	}

	return s, true
}

// release is the statement that releases all that a client holds. A batch passes over locked rows, and asks
// again: here it comes when none is locked.
func (s allState) release(c uint8) (allState, bool) {
	for i := range s.rows {
		row := &s.rows[i]
		if row.holder != c+1 {
			continue
		}

		if row.lock != 0 {
			return s, false
		}

		row.holder = 0
	}

	s.clients[c].step = 0

	return s, true
}
