package ui

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// restFactor is how many times as long as a read the pause after it lasts, at least: all reads of a page take a
	// tenth of the time at most.
	restFactor = 10
	// readers is how many pages are read at the same time: so many connections are in use at most.
	readers = 2
	// readFor is how long a read may take. A table of ten million rows is read in less than a minute. A database
	// that hangs is noticed sooner: see guarded.
	readFor = 10 * time.Minute
	// afterFailure is the shortest pause after a read that failed.
	afterFailure = time.Second
	// keptViews is how many pages are remembered. More are only while they are watched or wait to be read.
	keptViews = 64
	// waitingViews is how many pages that nobody watches may wait to be read.
	waitingViews = 64
)

// errTooMany: so many other pages wait to be read that this one isn't.
var errTooMany = errors.New("pglocker/ui: too many pages wait to be read")

// hub has one goroutine for each page that is watched, however many viewers it has.
//
// A view is idle, or it is being read in turns: a read, and a pause. It leaves the idle state when a viewer comes
// and goes back to it when the last has left. The hub's mu guards all views.
type hub struct {
	read    func(ctx context.Context, q query, last any) (look, error)
	failed  func(q query, err error) // told of the first of the reads that fail
	refresh time.Duration
	slots   chan struct{} // has room for each reader
	scans   chan struct{} // has room for each reader but one, see [query.scans]

	ctx context.Context
	end context.CancelFunc
	wg  sync.WaitGroup

	mu      sync.Mutex
	views   map[query]*view
	waiting int // how many views are wanted
}

// look is what a page showed at one moment.
type look struct {
	data any
	// now is the database's clock at the read.
	now time.Time
	// notes say what the page can't show.
	notes []string
	// every is the shortest time between two reads, if that is longer than usual.
	every time.Duration
}

// state is the last look, and what has become of later ones.
type state struct {
	look
	// reads counts the reads. It is 0 if there was none.
	reads uint64
	// begun is when the last read began.
	begun time.Time
	// at is when the look was taken. Zero if none has succeeded.
	at time.Time
	// err is why the last read failed, since when reads have. nil if it didn't.
	err   error
	since time.Time
	// reading is when the read began that is under way.
	reading time.Time
}

type view struct {
	q query
	state
	watchers int
	wanted   bool          // by a request that waits for the next read
	running  bool          // its goroutine is
	due      time.Time     // no read before that
	changed  chan struct{} // closed after the next read
	woken    chan struct{} // has room for one: look whether there are viewers left
	used     time.Time
	// What its viewers see, see [Handler.rendered].
	readers, releasers rendering
}

func newHub(read func(context.Context, query, any) (look, error), failed func(query, error), refresh time.Duration) *hub {
	h := &hub{read: read, failed: failed, refresh: refresh, views: map[query]*view{}}
	h.slots, h.scans = make(chan struct{}, readers), make(chan struct{}, readers-1)
	h.ctx, h.end = context.WithCancel(context.Background())

	return h
}

func (h *hub) close() {
	h.mu.Lock()
	h.end()
	h.mu.Unlock()
	h.wg.Wait()
}

// find returns the view of a query. It is called under mu.
func (h *hub) find(q query) *view {
	v, ok := h.views[q]
	if !ok {
		h.forget(keptViews - 1)

		v = &view{q: q, changed: make(chan struct{}), woken: make(chan struct{}, 1)}
		h.views[q] = v
	}

	v.used = time.Now()

	return v
}

// forget drops the views that were used longest ago, of those that nobody watches, until so many are left. It is called
// under mu.
func (h *hub) forget(left int) {
	for len(h.views) > left {
		var oldest *view

		for _, v := range h.views {
			if !v.running && (oldest == nil || v.used.Before(oldest.used)) {
				oldest = v
			}
		}

		if oldest == nil {
			return
		}

		delete(h.views, oldest.q)
	}
}

// begin starts the view's goroutine, if it isn't there. It is called under mu.
func (h *hub) begin(v *view) {
	if !v.running && h.ctx.Err() == nil {
		v.running = true

		h.wg.Go(func() { h.run(v) })
	}
}

// get returns a page as it is now, or as it was read last if that read may not be repeated yet. It waits for a
// read for as long as its patience lasts. A read that began before since doesn't do. If too many others wait to be read,
// the state has the error errTooMany.
func (h *hub) get(ctx context.Context, q query, since time.Time, patience time.Duration) state {
	timer := time.NewTimer(patience)
	defer timer.Stop()

	h.mu.Lock()
	v := h.find(q) // once: it may be forgotten as soon as it is read
	h.mu.Unlock()

	for {
		h.mu.Lock()

		if v.reads > 0 && time.Now().Before(v.due) && !v.begun.Before(since) {
			defer h.mu.Unlock()

			return v.state
		}

		if !v.wanted && (v.reading.IsZero() || v.reading.Before(since)) {
			switch {
			case h.waiting < waitingViews:
				v.wanted = true
				h.waiting++
			case v.watchers == 0: // one that is watched is read anyway
				defer h.mu.Unlock()

				seen := v.state
				seen.err, seen.since = errTooMany, time.Now()

				return seen
			}
		}

		h.begin(v)
		changed := v.changed
		h.mu.Unlock()

		select {
		case <-changed:
			continue
		case <-timer.C:
		case <-ctx.Done():
		case <-h.ctx.Done():
		}

		seen, _ := h.seen(v)

		return seen
	}
}

// watch has a page be read until leave is called.
func (h *hub) watch(q query) (v *view, leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()

	v = h.find(q)
	v.watchers++

	h.begin(v)

	return v, func() {
		h.mu.Lock()
		defer h.mu.Unlock()

		v.watchers--

		select {
		case v.woken <- struct{}{}:
		default:
		}
	}
}

// seen returns the view as it is, and a channel that is closed after the next read.
func (h *hub) seen(v *view) (state, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()

	return v.state, v.changed
}

// run reads the view as often as it may, while somebody wants it.
func (h *hub) run(v *view) {
	for {
		h.mu.Lock()

		if h.ctx.Err() != nil || v.watchers == 0 && !v.wanted {
			v.running = false
			h.forget(keptViews)
			h.mu.Unlock()

			return
		}

		pause := time.Until(v.due)
		h.mu.Unlock()

		if pause > 0 {
			h.rest(v, pause)

			continue
		}

		if done, ok := h.turn(v); ok {
			h.look(v)
			done()
		}
	}
}

// turn waits until the view may be read. It isn't if the hub ends, or a viewer has left meanwhile.
func (h *hub) turn(v *view) (done func(), ok bool) {
	var taken []chan struct{}

	done = func() {
		for _, slots := range taken {
			<-slots
		}
	}

	needed := []chan struct{}{h.slots}
	if v.q.scans() {
		needed = []chan struct{}{h.scans, h.slots}
	}

	for _, slots := range needed {
		select {
		case slots <- struct{}{}:
			taken = append(taken, slots)
		case <-v.woken:
			done()

			return nil, false
		case <-h.ctx.Done():
			done()

			return nil, false
		}
	}

	return done, true
}

func (h *hub) rest(v *view, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()

	select {
	case <-timer.C:
	case <-v.woken:
	case <-h.ctx.Done():
	}
}

// look reads the view once, and tells its viewers.
func (h *hub) look(v *view) {
	begun := time.Now()

	h.mu.Lock()
	v.reading = begun

	if v.wanted {
		v.wanted = false
		h.waiting--
	}

	last := v.data
	h.mu.Unlock()

	ctx, cancel := context.WithTimeout(h.ctx, readFor)
	defer cancel()

	seen, err := h.read(ctx, v.q, last)

	h.mu.Lock()
	defer h.mu.Unlock()

	now := time.Now()
	pause := max(h.refresh, restFactor*now.Sub(begun))

	switch {
	case err == nil:
		v.look, v.at, v.err = seen, now, nil
		pause = max(pause, seen.every)
	case v.err == nil && h.ctx.Err() == nil:
		v.since = now
		h.failed(v.q, err)

		fallthrough
	default:
		v.err = err
		pause = max(pause, afterFailure)
	}

	v.reads++
	v.begun, v.reading, v.due = begun, time.Time{}, now.Add(pause)

	close(v.changed)
	v.changed = make(chan struct{})
}
