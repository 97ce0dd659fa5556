//go:build unix && !aix && !solaris

package child

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killAgain is how often descendants are looked for that were started while the others were killed.
	killAgain = 20 * time.Millisecond
	// patience is how long the system may take at least to end what was killed.
	patience = 5 * time.Second
)

// end ends the command and its descendants. status is how the command has ended, nil if it hasn't.
func (s *Supervisor) end(r *running, status *unix.WaitStatus) (Exit, error) {
	kill := time.NewTimer(r.Grace) // it takes time to find all descendants
	defer kill.Stop()

	s.terminal.give(r.pid) // the command may want to leave the terminal as it was
	r.signalAll(syscall.SIGTERM, syscall.SIGCONT)

	var (
		childless    = r.childless
		giveUp, look <-chan time.Time
	)

	for {
		select {
		case event := <-r.events:
			if ended(event) {
				status = &event
			}
		case <-childless:
			// Where this process adopts nobody, some of the group may be left.
			childless, look = nil, time.Tick(killAgain)
		case <-look:
		case <-kill.C:
			r.signalAll(syscall.SIGKILL)
			kill.Reset(killAgain)

			if giveUp == nil {
				giveUp = time.After(max(r.Grace, patience))
			}
		case <-giveUp:
			return Exit{Signal: syscall.SIGKILL}, fmt.Errorf("the command, process %d, or a descendant doesn't end by SIGKILL", r.pid)
		}

		if childless == nil && status != nil && unix.Kill(-r.pid, 0) != nil {
			return exitOf(*status), nil
		}
	}
}
