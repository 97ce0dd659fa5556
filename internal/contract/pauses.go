package contract

import (
	"fmt"
	"io"
	"time"
)

// pauses are how long the process, or the machine, stood still. They may explain a test that came too late.
type pauses struct {
	stop, done chan struct{}
	seen       []stall
}

const (
	// pauseTick is how often the process notes that it runs.
	pauseTick = 20 * time.Millisecond
	// pauseSince is how long a pause is that is told.
	pauseSince = 300 * time.Millisecond
)

func watchPauses() *pauses {
	p := &pauses{stop: make(chan struct{}), done: make(chan struct{})}

	go func() {
		defer close(p.done)

		ticks := time.NewTicker(pauseTick)
		defer ticks.Stop()

		for last := time.Now(); ; {
			select {
			case <-ticks.C:
			case <-p.stop:
				return
			}

			now := time.Now()
			if now.Sub(last) > pauseSince {
				p.seen = append(p.seen, stall{last, now})
			}

			last = now
		}
	}()

	return p
}

// end ends the watch, and tells what was seen if a test has failed.
func (p *pauses) end(w io.Writer, failed bool) {
	close(p.stop)
	<-p.done

	if !failed {
		return
	}

	for _, s := range p.seen {
		_, _ = fmt.Fprintf(w, "the process stood still for %s, until %s\n", s.to.Sub(s.from).Round(time.Millisecond), s.to.Format(time.TimeOnly))
	}
}
