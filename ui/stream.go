package ui

import (
	"bytes"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

const (
	// pingEvery is how often a stream without news shows that it is alive.
	pingEvery = 10 * time.Second
	// writeFor is how long a viewer may take to read what is sent. It is above any write timeout of the server,
	// which counts from the beginning of the request.
	writeFor = 20 * time.Second
)

// news is one event of a stream.
type news struct {
	// HTML is the page's changing part. "" if it hasn't changed.
	HTML string `json:"html,omitempty"`
	// Now is the database's clock, in milliseconds. 0 if it isn't known.
	Now int64 `json:"now"`
	// Failed: the last read failed.
	Failed bool `json:"failed,omitempty"`
}

// stream sends a page whenever it has changed, until the viewer leaves, the server is shut down, the handler is
// closed, or the stream's life is over.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request) {
	q, ok := newQuery(r.URL.Query().Get("page"), r.URL.Query())
	if !ok {
		h.fail(w, http.StatusNotFound, "There is no such page.")

		return
	}

	select {
	case h.streams <- struct{}{}:
		defer func() { <-h.streams }()
	default:
		h.fail(w, http.StatusServiceUnavailable, "Too many viewers. Reload the page to see changes.")

		return
	}

	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // nginx would keep events back

	if r.Method == http.MethodHead {
		return
	}

	out := http.NewResponseController(w)
	send := func(text []byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(writeFor)) // not every server has one
		_, err := w.Write(text)

		return err == nil && out.Flush() == nil
	}

	view, leave := h.hub.watch(q)
	defer leave()

	life := time.NewTimer(StreamLife)
	defer life.Stop()

	ping := time.NewTicker(pingEvery)
	defer ping.Stop()

	shutdown := h.servers.running(r)
	can := h.allowed(r, Release)

	// The first event is what was read before the viewer came, if anything was.
	if !send([]byte("retry: 1000\n\n")) {
		return
	}

	var (
		sent []byte
		told uint64
	)

	for {
		seen, changed := h.hub.seen(view)

		if seen.reads > told {
			event := news{Now: seen.clock().UnixMilli(), Failed: seen.err != nil}

			html, err := h.rendered(view, seen, can)
			if err != nil {
				return
			}

			if !bytes.Equal(html, sent) {
				event.HTML, sent = string(html), html
			}

			text, err := json.Marshal(event) // in one line, whatever is in it
			if err != nil || !send([]byte("data: "+string(text)+"\n\n")) {
				return
			}

			told = seen.reads
		}

		select {
		case <-changed:
		case <-ping.C:
			if !send([]byte(": \n\n")) {
				return
			}
		case <-life.C:
			return
		case <-shutdown.Done():
			return
		case <-h.hub.ctx.Done():
			return
		case <-r.Context().Done():
			return
		}
	}
}

// age is how old the last look is.
func age(s state) time.Duration {
	if s.at.IsZero() {
		return 0
	}

	return time.Since(s.at)
}

// clock is the database's clock now, as far as the last look tells, or 1970.
func (s state) clock() time.Time {
	if s.at.IsZero() {
		return time.UnixMilli(0).UTC()
	}

	return s.now.Add(age(s))
}

// rendering is a page as it was sent last.
type rendering struct {
	mu    sync.Mutex
	reads uint64
	html  []byte
}

// rendered is the changing part of a page for those who may release locks, or for those who may not. It is made
// once for all of them.
func (h *Handler) rendered(v *view, s state, can bool) ([]byte, error) {
	r := &v.readers
	if can {
		r = &v.releasers
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	if r.reads == s.reads {
		return r.html, nil
	}

	html, err := h.fragment(v.q, s, can, false)
	if err == nil {
		r.reads, r.html = s.reads, html
	}

	return html, err
}
