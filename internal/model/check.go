package model

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

type Violation struct {
	Property Property
	Text     string
}

func violation(p Property, format string, args ...any) *Violation {
	return &Violation{p, fmt.Sprintf(format, args...)}
}

type Result struct {
	// States is how many states were reached, Transitions how many steps begin in them.
	States, Transitions int
	// Depth is the number of steps to the state that is the farthest from the start.
	Depth int
	// Broken is the first promise that is broken, nil if none is. Trace is a shortest way
	// there.
	Broken *Violation
	Trace  []string
}

// yield takes a step: its label, with a verb for the argument, the state that it leads to,
// and what is broken on the way.
type yield func(label, arg string, to State, broken *Violation)

func Check(scenario Scenario, mutant Mutant) Result {
	m := &machine{Scenario: scenario, mutant: mutant}
	start := State{now: 1, timeline: 1}
	start.cur.row, start.durable.row = noRow(), noRow()

	// reached has the states in the order in which they were reached, and from where.
	type arrival struct {
		state State
		from  int
	}

	m.tidy(&start)

	reached := []arrival{{state: start}}

	// known leads from the hash of a state to its place in reached. A second state of the
	// same hash has the next key.
	seed := maphash.MakeSeed()
	known := map[uint64]int{maphash.Comparable(seed, start): 0}
	isKnown := func(s State) bool {
		for h := maphash.Comparable(seed, s); ; h++ {
			at, ok := known[h]
			if !ok {
				known[h] = len(reached)

				return false
			}

			if reached[at].state == s {
				return true
			}
		}
	}

	result := Result{}

	end := 1 // of those of the present depth

	for i := 0; i < len(reached); i++ {
		if i == end {
			result.Depth++
			end = len(reached)
		}

		from := reached[i].state
		m.steps(&from, func(label, arg string, to State, broken *Violation) {
			if broken != nil && slices.Contains(m.NotPromised, broken.Property) {
				broken = nil
			}

			result.Transitions++

			if broken != nil && result.Broken == nil {
				result.Broken = broken
				result.Trace = []string{describe(label, arg, &to)}

				for at := i; at != 0; at = reached[at].from {
					result.Trace = append(result.Trace, m.step(&reached[reached[at].from].state, &reached[at].state))
				}

				slices.Reverse(result.Trace)
			}

			m.tidy(&to)

			if !isKnown(to) {
				reached = append(reached, arrival{to, i})
			}
		})

		if result.Broken != nil {
			break
		}
	}

	result.States = len(reached)

	return result
}

func (m *machine) steps(s *State, yield yield) {
	for c := range m.Clients {
		m.client(s, c, yield)

		for slot, r := range s.clients[c].requests {
			if r.kind != none && (r.phase == sent || r.phase == blocked || r.phase == begun) {
				m.execute(*s, c, slot, yield)
			}
		}
	}

	if s.tx.open {
		m.commitOpen(*s, yield)
	}

	m.faults(s, yield)
	m.prune(s, yield)

	if s.now < m.Horizon {
		t := *s
		m.tick(&t)
		yield("the clock ticks", "", t, nil)
	}
}

func (m *machine) tick(s *State) {
	s.now++

	for c := range m.Clients {
		if cl := &s.clients[c]; !cl.paused && cl.holds && s.now >= cl.deadline {
			cl.holds = false
		}
	}
}

func (m *machine) step(from, to *State) string {
	text := ""

	m.steps(from, func(label, arg string, state State, _ *Violation) {
		shown := state
		if m.tidy(&state); state == *to && text == "" {
			text = describe(label, arg, &shown)
		}
	})

	return text
}

func describe(label, arg string, s *State) string {
	if arg != "" {
		label = fmt.Sprintf(strings.NewReplacer("%c", "%s").Replace(label), arg)
	}

	var holders []string

	for c := range s.clients {
		if s.believes(c) {
			holders = append(holders, fmt.Sprintf("%c holds token %d until %d", 'A'+c, s.clients[c].token, s.clients[c].deadline))
		}
	}

	return strings.TrimRight(fmt.Sprintf("%-72s t=%d  %-34s %s", label, s.now, s.cur.row, strings.Join(holders, ", ")), " ")
}

func who(c int) string { return string(rune('A' + c)) }

func what(c int, r *request) string {
	text := fmt.Sprintf("the %s of %c", r.kind, 'A'+c)

	switch r.kind {
	case acquire, settle, settleHandOver:
		return text + fmt.Sprintf(" as %s", r.name)
	case refresh, swap, handOver:
		return text + fmt.Sprintf(" of %d as %s", r.gen, r.name)
	}

	return text + fmt.Sprintf(" of %d", r.gen)
}

func (n name) String() string {
	if n == 0 {
		return "no owner"
	}

	return fmt.Sprintf("%c%d", 'A'+(n-1)/maxTries, (n-1)%maxTries+1)
}

func (r row) String() string {
	if !r.there {
		return "no row"
	}

	if r.expires == 0 { // see tidy
		return fmt.Sprintf("row: gen %d, %s, over", r.gen, r.owner)
	}

	return fmt.Sprintf("row: gen %d, %s, until %d", r.gen, r.owner, r.expires)
}
