package ui

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

// Action is what a request wants to do.
type Action string

const (
	// Read is every page, and the stream of its changes.
	Read Action = "read"
	// Release is the release of a lock by force, and the page that asks for its reason.
	Release Action = "release"
)

// Options says what a [Handler] shows, and to whom. The zero value shows everything to everyone who can reach the
// handler, and changes nothing.
type Options struct {
	// AllowRelease lets viewers release locks by force ([pglocker.Locker.ForceRelease]).
	AllowRelease bool

	// Authorize says whether a request may do that. If it returns false, the answer is 403. It is asked before
	// each answer, and for a stream again after [StreamLife] at the latest. It is called by many goroutines at
	// once. Default: every request may do everything that AllowRelease leaves.
	Authorize func(r *http.Request, action Action) bool

	// User is who sends a request. It goes to the reason of a release by force, for the history and the log.
	// Default: no name.
	User func(r *http.Request) string

	// Refresh is the shortest time between two looks at the table. A look that took longer than a tenth of that
	// is followed by a pause of ten times its own length. Default: 500 ms. The least is 100 ms
	// (ErrInvalidOptions).
	Refresh time.Duration

	// Rows is how many rows a page lists. The others are on the next pages. Default: 100. It must be within 1
	// and 1,000 (ErrInvalidOptions).
	Rows int

	// Title stands in the heading of each page, such as the name of the database. Default: none.
	Title string

	// Logger is told, in full, of the database's errors, of which a page only says what they mean, and of
	// releases by force that were refused or failed. The Locker's own Logger is told of those that were done.
	// Default: silence.
	Logger *slog.Logger
}

var (
	// ErrLockerIsNil: New got no Locker.
	ErrLockerIsNil = errors.New("pglocker/ui: locker is nil")
	// ErrInvalidOptions: an option is out of its range.
	ErrInvalidOptions = errors.New("pglocker/ui: invalid options")
)

// StreamLife is the longest that one stream lasts. The page then asks for another, which is authorized anew.
const StreamLife = 10 * time.Minute

// MaxStreams is how many streams a Handler serves at the same time. Further viewers get a page that isn't live.
const MaxStreams = 200

// Handler serves the pages. Make it with [New]. It is safe for concurrent use. It owns no goroutine while no page
// is being read or watched.
type Handler struct {
	locker  *pglocker.Locker
	options Options
	mux     *http.ServeMux
	hub     *hub
	servers servers
	streams chan struct{} // has room for each stream
}

var _ http.Handler = (*Handler)(nil)

// New returns a Handler. It sends nothing to the database. The caller closes the Locker, after the Handler.
//
// Errors: ErrLockerIsNil, ErrInvalidOptions.
func New(locker *pglocker.Locker, options Options) (*Handler, error) {
	if locker == nil {
		return nil, ErrLockerIsNil
	}

	if options.Refresh == 0 {
		options.Refresh = 500 * time.Millisecond
	}

	if options.Rows == 0 {
		options.Rows = 100
	}

	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}

	switch {
	case options.Refresh < 100*time.Millisecond:
		return nil, fmt.Errorf("%w: Refresh is %s, the least is 100ms", ErrInvalidOptions, options.Refresh)
	case options.Rows < 1 || options.Rows > 1000:
		return nil, fmt.Errorf("%w: Rows is %d, not within 1 and 1000", ErrInvalidOptions, options.Rows)
	}

	h := &Handler{locker: locker, options: options, streams: make(chan struct{}, MaxStreams)}
	h.hub = newHub(h.read, h.failed, options.Refresh)
	h.mux = h.routes()

	return h, nil
}

// Close ends all streams, and waits for the goroutines that read the table. Later requests get 503. A server's
// Shutdown ends its streams without it.
func (h *Handler) Close() { h.hub.close() }

// routes are relative to where the handler is mounted. Every page is one level deep, so relative links work under
// any prefix.
func (h *Handler) routes() *http.ServeMux {
	mux := http.NewServeMux()

	for _, p := range pages {
		mux.HandleFunc("GET /"+p.path, h.may(Read, h.page))
	}

	// These are pages of "/" too: the pattern of the overview is exact.
	mux.HandleFunc("GET /events", h.may(Read, h.stream))
	mux.HandleFunc("GET /static/{file}", h.may(Read, asset))

	if h.options.AllowRelease {
		mux.HandleFunc("GET /release", h.may(Release, h.askRelease))
		mux.HandleFunc("POST /release", h.may(Release, h.release))
	}

	mux.HandleFunc("GET /", h.may(Read, func(w http.ResponseWriter, _ *http.Request) {
		h.fail(w, http.StatusNotFound, "There is no such page.")
	}))

	return mux
}

// ServeHTTP serves a page. The request's path must begin behind the prefix under which the handler is mounted: see
// [http.StripPrefix].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())

	if h.hub.ctx.Err() != nil {
		h.fail(w, http.StatusServiceUnavailable, "This page is being shut down.")

		return
	}

	if r.URL.Path == "" { // mounted as /prefix, without its slash: relative links need that
		asked, _, _ := strings.Cut(r.RequestURI, "?")
		w.Header().Set("Location", path.Base(asked)+"/")
		w.WriteHeader(http.StatusMovedPermanently)

		return
	}

	// Such a request can't be read by its site. It could have the table read again and again.
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Dest") != "document" {
		h.fail(w, http.StatusForbidden, "This request came from another site. Nothing was done.")

		return
	}

	h.servers.running(r) // a shutdown that begins before the first stream must be known
	h.mux.ServeHTTP(w, r)
}

// may asks Authorize before it serves.
func (h *Handler) may(action Action, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !h.allowed(r, action) {
			h.fail(w, http.StatusForbidden, "You may not do this.")

			return
		}

		serve(w, r)
	}
}

func (h *Handler) allowed(r *http.Request, action Action) bool {
	return (action != Release || h.options.AllowRelease) && (h.options.Authorize == nil || h.options.Authorize(r, action))
}

// secure sets what keeps a page to its own origin. Without default-src, style, script or picture from elsewhere is
// loaded, and no style or script in the page itself is run.
func secure(header http.Header) {
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "+
		"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "same-origin") // with no-referrer, forms would be sent with the origin "null"
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
}
