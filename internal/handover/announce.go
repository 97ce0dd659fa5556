package handover

import (
	"context"
	"sync"
	"time"
)

// announceWithin bounds how long a release waits for the announcement of the grant.
const announceWithin = 20 * time.Millisecond

// announcements are those under way.
type announcements struct {
	// mu guards ends, by the lock. Each is closed when its announcement was sent.
	mu   sync.Mutex
	ends map[string]chan struct{}
}

// Announce sends an announcement of a grant in the background. It comes before the release: after that it would
// keep waiters from a lock that is free.
func (d *Desk) Announce(lockID string, send func()) {
	ended := make(chan struct{})

	d.announced.mu.Lock()
	defer d.announced.mu.Unlock()

	if d.announced.ends == nil {
		d.announced.ends = make(map[string]chan struct{})
	}

	if d.announced.ends[lockID] != nil { // an earlier one hangs
		return
	}

	end, err := d.Begin()
	if err != nil {
		return
	}

	d.announced.ends[lockID] = ended

	go func() {
		defer end()

		send()

		d.announced.mu.Lock()
		defer d.announced.mu.Unlock()

		delete(d.announced.ends, lockID)
		close(ended)
	}()
}

// awaitAnnouncement returns when no announcement of the lock is under way, or after a time.
func (d *Desk) awaitAnnouncement(ctx context.Context, lockID string) {
	d.announced.mu.Lock()
	ended := d.announced.ends[lockID]
	d.announced.mu.Unlock()

	if ended == nil {
		return
	}

	timer := time.NewTimer(announceWithin)
	defer timer.Stop()

	select {
	case <-ended:
	case <-timer.C:
	case <-ctx.Done():
	}
}
