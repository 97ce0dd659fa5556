package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/suite"
)

// long is a run for hours, round after round. A round is every fault once, the control, and half as
// many mixtures. Its order and seeds follow from the seed and the round.
type long struct {
	on, resume   bool
	from, most   int
	each         time.Duration
	state, table string
}

// longFlags adds the flags of long runs.
func longFlags() *long {
	l := &long{}
	flag.BoolVar(&l.on, "long", false, "run round after round, each every fault and as many mixtures as half of them")
	flag.DurationVar(&l.each, "each", 8*time.Second, "with -long: how long each fault lasts")
	flag.IntVar(&l.from, "from", 0, "with -long: the number of the job to begin with")
	flag.IntVar(&l.most, "jobs", 0, "with -long: run so many jobs, whatever the duration, and leave the state alone")
	flag.StringVar(&l.state, "state", "long.json", "with -long: the file that says how far it got")
	flag.BoolVar(&l.resume, "resume", false, "with -long: go on where the state file says")
	flag.StringVar(&l.table, "table", "", "with -long: a file for the table, in Markdown")

	return l
}

// longState is how far a long run got. It is written after each job.
type longState struct {
	Seed uint64
	// Next is the number of the next job.
	Next int
	Each time.Duration
	// Elapsed is how long the run has taken, all parts of it together.
	Elapsed time.Duration
	Tally   suite.Tally
}

func (l *long) run(ctx context.Context, s *suite.Suite, seed uint64, duration time.Duration, strict bool) error {
	state := &longState{Seed: seed, Next: l.from, Each: l.each}

	if l.resume {
		text, err := os.ReadFile(l.state)
		if err != nil {
			return fmt.Errorf("nothing to resume: %w", err)
		}

		if err := json.Unmarshal(text, state); err != nil {
			return fmt.Errorf("%s: %w", l.state, err)
		}
	}

	fmt.Printf("seed %d, from job %d on\n", state.Seed, state.Next)

	first, began := state.Next, time.Now().Add(-state.Elapsed)

	over := func() bool {
		if l.most > 0 {
			return state.Next-first >= l.most
		}

		return time.Since(began) >= duration
	}

	for !over() && ctx.Err() == nil {
		jobs := round(state.Seed, state.Next/roundSize())

		for n := state.Next % len(jobs); n < len(jobs) && !over(); n++ {
			job := jobs[n]
			job.Duration = state.Each
			r := s.Run(ctx, job)

			if ctx.Err() != nil {
				break
			}

			state.Tally.Add(r)
			r.Print(os.Stdout, fmt.Sprintf("-long -seed %d -from %d -jobs 1 -each %s", state.Seed, state.Next, state.Each))

			state.Next++
			state.Elapsed = time.Since(began)

			if err := l.save(state); err != nil {
				state.note("(state file)", err)
			}

			state.printProgress(state.Next-first, duration)
		}

		// Each run leaves its database behind.
		if err := s.Close(); err != nil {
			state.note("(end of a round)", err)
		}
	}

	return l.end(ctx, state, strict)
}

// note records a failure beside the jobs, in a row of its own. Another server is started and the
// state is written again, so that the run can go on.
func (state *longState) note(what string, err error) {
	fmt.Printf("%s: %v\n", what, err)
	state.Tally.Add(&suite.Result{Job: suite.Job{Fault: fault.Fault{Name: what}}, Err: err})
}

func (l *long) save(state *longState) error {
	if l.most > 0 {
		return nil
	}

	text, err := json.MarshalIndent(state, "", " ")
	if err != nil {
		return err
	}

	// By renaming: it may be interrupted at any time.
	return errors.Join(os.WriteFile(l.state+".new", text, 0o644), os.Rename(l.state+".new", l.state))
}

// end prints what was found, and how to go on.
func (l *long) end(ctx context.Context, state *longState, strict bool) error {
	err := state.Tally.Write(os.Stdout)
	fmt.Println(state.Tally.Total().Excused)

	if l.table != "" {
		err = errors.Join(err, os.WriteFile(l.table, []byte(state.Tally.Markdown()), 0o644))
	}

	if l.most == 0 {
		fmt.Printf("%d jobs in %s. To go on: make verify-long FLAGS='-resume -state %s -duration D', or anew with -seed %d -from %d\n",
			state.Tally.Total().Runs, state.Elapsed.Round(time.Second), l.state, state.Seed, state.Next)
	}

	skipped := state.Tally.Total().Skipped
	if skipped > 0 {
		fmt.Printf("%d runs were NOT made, for want of what they need\n", skipped)
	}

	switch {
	case err != nil:
		return err
	case state.Tally.Failed():
		return errViolated
	case ctx.Err() != nil:
		return errInterrupted
	case strict && skipped > 0:
		return errNotRun
	}

	return nil
}

// printProgress says how far the run got, and what this process uses, which has to stay the same
// over hours. done are the jobs of this part.
func (state *longState) printProgress(done int, duration time.Duration) {
	var memory runtime.MemStats

	runtime.GC()
	runtime.ReadMemStats(&memory)

	files, _ := os.ReadDir("/proc/self/fd") // for the eye alone
	total := state.Tally.Total()
	left := max(0, duration-state.Elapsed)

	fmt.Printf("    job %d of round %d, %d in all: %s of %s, ends about %s; %d operations, %d violations, %d errors; %d goroutines, %d files, %d MiB\n",
		(state.Next-1)%roundSize()+1, (state.Next-1)/roundSize()+1, done,
		state.Elapsed.Round(time.Second), duration, time.Now().Add(left).Format("15:04:05"),
		total.Operations, total.Found(), total.Errors,
		runtime.NumGoroutine(), len(files), memory.HeapAlloc>>20)
}

// mixtures are as many as make a third of a round.
func mixtures() int { return (len(fault.All()) + 2) / 2 }

func roundSize() int { return len(fault.All()) + 1 + mixtures() }

// round lists the jobs of one round.
func round(seed uint64, number int) []suite.Job {
	r := rand.New(rand.NewPCG(suite.SeedOf(seed, fmt.Sprintf("round %d", number)), 0))

	var jobs []suite.Job

	for _, f := range fault.All() {
		jobs = append(jobs, suite.Job{Fault: f, Seed: r.Uint64()})
	}

	jobs = append(jobs, suite.Job{Fault: fault.Control(), Control: true, Seed: r.Uint64()})

	for range mixtures() {
		const least, most = 2, 4

		jobs = append(jobs, suite.Job{Fault: fault.Mixture(r, least+r.IntN(most-least+1), fault.Any), Seed: r.Uint64()})
	}

	r.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })

	return jobs
}
