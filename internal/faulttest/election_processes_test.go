//go:build linux

package faulttest

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

var long = flag.Bool("long", false, "kill the leader of an election 50 times, and stop it 20 times, in two minutes")

// TestElectionProcesses: of five processes the leader is killed, stopped and asked to resign, many times. No two
// believe at the same moment that they lead. The next one leads within the TTL and a poll. Observers see every
// term, in order, whether they hear or poll.
func TestElectionProcesses(t *testing.T) {
	t.Parallel()

	const (
		processes = 5
		// A poll, and time for a busy machine.
		poll = 400*time.Millisecond + time.Second
	)

	kills, stops, resignations := 5, 2, 2
	if *long {
		kills, stops, resignations = 50, 20, 20
	}

	// The leases are so short that other tests on the server would end them.
	url := contract.StartServer(t).URL()
	locker := contract.NewLocker(t, "pgx", url)
	machine := contract.WatchMachine(t, contract.Open(t, "pgx", url))
	w := &workers{url: url, called: make(chan call, 1000)}

	observers := make(map[string]*observer)
	for _, driver := range contract.Drivers {
		observers[driver] = observe(t, contract.NewLocker(t, driver, url))
	}

	election, err := locker.NewElection(electionName, electionTTL)
	contract.Must(t, err)

	var all []*process
	for i := range processes {
		all = append(all, w.start(t, fmt.Sprint("worker ", i)))
	}

	t.Cleanup(func() {
		for _, p := range all {
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
			_ = p.input.Close() // which ends it
		}

		w.done.Wait()
	})

	const kill, stop, resign = "killed", "stopped", "asked to resign"

	rounds := slices.Concat(slices.Repeat([]string{kill}, kills), slices.Repeat([]string{stop}, stops), slices.Repeat([]string{resign}, resignations))
	rand.Shuffle(len(rounds), func(i, j int) { rounds[i], rounds[j] = rounds[j], rounds[i] })

	late := make(map[string][]time.Duration)
	leader := contract.Receive(t, "the first leads", w.called)

	for void := 0; len(rounds) > 0; {
		round := rounds[0]
		rounds = rounds[1:]

		time.Sleep(rand.N(electionTTL / 2)) // at any time of a term, also before its first renewal

		broken := time.Now()

		var err error

		switch round {
		case kill:
			leader.by.signal(t, syscall.SIGKILL)

			i := slices.Index(all, leader.by)
			all[i] = w.start(t, leader.by.name)
		case stop:
			leader.by.signal(t, syscall.SIGSTOP)
		case resign:
			err = election.RequestResign(t.Context(), leader.token)
		}

		next := contract.Receive(t, "the next leads", w.called)
		took := next.at.Sub(broken)

		if round == stop {
			leader.by.signal(t, syscall.SIGCONT)
		}

		leader = next

		// On a busy machine a term of a second may end by itself.
		if took < 0 || errors.Is(err, pglocker.ErrNoLeader) || errors.Is(err, pglocker.ErrWrongGeneration) {
			rounds = append(rounds, round)

			if void++; void > kills+stops+resignations {
				t.Fatal("most terms end by themselves")
			}

			continue
		}

		contract.Must(t, err)

		late[round] = append(late[round], took)

		if stood := machine.Stood(broken, next.at); took > electionTTL+poll+stood {
			t.Errorf("the leader was %s, and the next led %s later; the machine stood still for %s of that", round, took, stood)
		}
	}

	// Those that end now hand the leadership on, each to the next.
	for _, p := range all {
		contract.Must(t, p.input.Close())
	}

	w.done.Wait()

	terms := w.beliefs(t)

	for driver, o := range observers {
		contract.Await(t, "the observer has seen the last end", func() bool {
			seen := o.terms()

			return len(seen) > 1 && seen[len(seen)-1].Vacant() && seen[len(seen)-2].Token >= terms[len(terms)-1].token
		})
		o.sawAll(t, driver, terms)
	}

	for round, took := range late {
		slices.Sort(took)
		t.Logf("%d times the leader was %s, and the next led after %s (median), at most %s",
			len(took), round, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	}
}

// belief is for how long a leader said that it leads.
type belief struct {
	token       int64
	first, last time.Time
}

// beliefs are those of all terms that had a leader, by their tokens. No two may overlap.
func (w *workers) beliefs(t *testing.T) []belief {
	t.Helper()

	byToken := make(map[int64]*belief)

	for _, r := range w.reports {
		at := time.Unix(0, r.At)

		b := byToken[r.Token]
		if b == nil {
			b = &belief{r.Token, at, at}
			byToken[r.Token] = b
		}

		if at.Before(b.first) {
			b.first = at
		}

		if at.After(b.last) {
			b.last = at
		}
	}

	var all []belief
	for _, b := range byToken {
		all = append(all, *b)
	}

	slices.SortFunc(all, func(a, b belief) int { return cmp.Compare(a.token, b.token) })

	var least time.Duration

	for i, next := range all[1:] {
		before := all[i]
		apart := next.first.Sub(before.last)

		if apart <= 0 {
			t.Errorf("the leader of token %d believed until %s, and that of %d from %s",
				before.token, before.last, next.token, next.first)
		}

		if i == 0 || apart < least {
			least = apart
		}
	}

	t.Logf("%d terms, %d reports, at least %s between two terms", len(all), len(w.reports), least)

	return all
}

// observer keeps what it sees.
type observer struct {
	mu   sync.Mutex
	seen []pglocker.Term
}

// observe observes the election until the test ends.
func observe(t *testing.T, locker *pglocker.Locker) *observer {
	t.Helper()

	election, err := locker.NewElection(electionName, electionTTL, pglocker.WithObserveOnly())
	contract.Must(t, err)

	var (
		o         = new(observer)
		done      sync.WaitGroup
		ctx, stop = context.WithCancel(context.Background())
	)

	done.Go(func() {
		for term, err := range election.Observe(ctx) {
			if err != nil { // a busy machine may take longer than a look
				t.Logf("Observe: %v", err)

				continue
			}

			o.mu.Lock()
			o.seen = append(o.seen, term)
			o.mu.Unlock()
		}
	})

	t.Cleanup(func() {
		stop()
		done.Wait()
	})

	return o
}

func (o *observer) terms() []pglocker.Term {
	o.mu.Lock()
	defer o.mu.Unlock()

	return slices.Clone(o.seen)
}

// sawAll fails the test unless the observer saw all those terms, in order.
func (o *observer) sawAll(t *testing.T, driver string, terms []belief) {
	t.Helper()

	var (
		seen    = make(map[int64]bool)
		vacant  int
		largest int64
		last    pglocker.Term
	)

	for i, term := range o.terms() {
		switch {
		case term.Vacant():
			if vacant++; i > 0 && last.Vacant() {
				t.Errorf("%s: seen %+v after %+v", driver, term, last)
			}
		case term.Token <= largest, !strings.HasPrefix(term.Leader, "worker "), term.Since.IsZero():
			t.Errorf("%s: seen %+v after token %d", driver, term, largest)
		default:
			seen[term.Token], largest = true, term.Token
		}

		last = term
	}

	for _, term := range terms {
		if !seen[term.token] {
			t.Errorf("%s: the term of token %d was not seen", driver, term.token)
		}
	}

	t.Logf("the observer over %s saw %d terms and %d vacancies", driver, len(seen), vacant)
}
