package ui

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/ismurov/pglocker"
)

//go:embed templates/*.html
var templateFiles embed.FS

// patience is how long a request waits for the first look at a page. A large table takes longer: then the page says
// so, and its stream brings the look.
const patience = 2 * time.Second

// templates are read when the first Handler is made: most programs that contain this package make none.
var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"id": idHTML, "owner": ownerHTML, "visible": visible, "duration": duration,
		"lockURL": lockURL, "asset": assetURL, "releaseURL": releaseURL,
		"when": func(v *fragment, t time.Time) template.HTML { return when(t, v.Clock(), v.Scripted) },
	}).ParseFS(templateFiles, "templates/*.html"))
})

// fragment is the part of a page that changes.
type fragment struct {
	Q     query
	State state
	Data  any
	// Can: the viewer may release locks by force.
	Can bool
	// Scripted: the viewer's script counts the seconds.
	Scripted bool
	Failure  string
}

func (f *fragment) PageName() string { return f.Q.page }
func (f *fragment) Notes() []string  { return f.State.notes }
func (f *fragment) Since() time.Time { return f.State.since }
func (f *fragment) At() time.Time    { return f.State.at }
func (f *fragment) Now() time.Time   { return f.State.now }

// Clock is the database's clock now, as far as the last look tells.
func (f *fragment) Clock() time.Time { return f.State.clock() }

// Age is how old the last look is.
func (f *fragment) Age() string {
	if f.Scripted {
		return ""
	}

	return duration(age(f.State)) + " ago"
}

// Reading is for how long the read that is under way has taken, if nothing was read before.
func (f *fragment) Reading() bool { return f.State.at.IsZero() && f.State.err == nil }

// Page returns the address of the page with another state, "" for the present one.
func (f *fragment) Page(state string) string {
	q := f.Q
	q.state, q.after = state, ""

	return q.url()
}

// Next is the address of the next page.
func (f *fragment) Next(after string) string {
	q := f.Q
	q.after = after

	return q.url()
}

// First is the address of the first page, "" if this is it.
func (f *fragment) First() string {
	if f.Q.after == "" {
		return ""
	}

	return f.Next("")
}

// Span is the address of the page with another span of time.
func (f *fragment) Span(d time.Duration) string {
	q := f.Q
	q.span = d

	return q.url()
}

// Prefix and After are those that the page was asked for.
func (f *fragment) Prefix() string { return f.Q.prefix }
func (f *fragment) After() string  { return f.Q.after }
func (f *fragment) ListState() string {
	return f.Q.state
}

// stateTab and spanTab are what a page can be switched to.
type stateTab struct{ Name, Title string }

type spanTab struct {
	Span  time.Duration
	Title string
}

func (f *fragment) States() []stateTab {
	return []stateTab{{"held", "Held"}, {"waited", "Waited for"}, {"crashed", "Not released"}, {"free", "Free"}, {"all", "All"}}
}

func (f *fragment) Choices() []spanTab {
	return []spanTab{{spans[0], "15 min"}, {spans[1], "1 hour"}, {spans[2], "1 day"}, {spans[3], "7 days"}}
}

func (f *fragment) IsSpan(d time.Duration) bool { return f.Q.span == d }

// With is a part of the page with the fragment that it is in.
func (f *fragment) With(data any) part { return part{f, data} }

type part struct {
	F    *fragment
	Data any
}

// fragment renders the part of a page that changes.
func (h *Handler) fragment(q query, s state, can, full bool) ([]byte, error) {
	f := &fragment{Q: q, State: s, Data: s.data, Can: can, Scripted: !full}
	if s.err != nil {
		f.Failure = failure(s.err)
	}

	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, "fragment.html", f); err != nil {
		h.options.Logger.Error("pglocker: a page can't be rendered", "page", q.page, "error", err)

		return nil, err
	}

	return b.Bytes(), nil
}

// frame is a page, but for the part that changes.
type frame struct {
	Handler Options
	Nav     []navItem
	Heading string
	Title   string
	ID      string // of a lock or a recipe, which the heading names
	About   string
	Q       query
	Events  string
	Now     int64
	Body    template.HTML
	Message string
	Freed   string
	Form    *releaseForm
	Can     bool
}

type navItem struct {
	Title, URL string
	Current    bool
}

// Searches: the page lists what begins with a prefix.
func (f *frame) Searches() bool {
	switch f.Q.page {
	case "locks", "elections", "semaphores", "rwlocks":
		return true
	}

	return false
}

func (f *frame) Prefix() string    { return f.Q.prefix }
func (f *frame) ListState() string { return f.Q.state }
func (f *frame) Path() string      { return f.Q.page }
func (f *frame) Here() string      { return f.Q.url() }

// Clear is the address of the page without a prefix.
func (f *frame) Clear() string {
	q := f.Q
	q.prefix, q.after = "", ""

	return q.url()
}

// frame makes the frame of a page.
func (h *Handler) frame(q query) *frame {
	f := &frame{Handler: h.options, Q: q}

	for _, p := range pages {
		if p.nav {
			f.Nav = append(f.Nav, navItem{p.title, query{page: p.name}.url(), p.name == q.page})
		}

		if p.name == q.page {
			f.Heading, f.About = p.title, p.about
		}
	}

	switch {
	case q.page == "lock":
		kind, name := pglocker.KindOf(q.id)
		f.ID = name
		f.Heading = map[pglocker.Kind]string{
			pglocker.KindLock: "Lock", pglocker.KindElection: "Election", pglocker.KindSemaphore: "Slot of a semaphore",
			pglocker.KindRWLock: "Part of a read-write lock", pglocker.KindInternal: "Internal row",
		}[kind]
	case q.page == "group":
		f.ID, f.Heading = q.name, map[pglocker.Kind]string{
			pglocker.KindSemaphore: "Semaphore", pglocker.KindRWLock: "Read-write lock",
		}[q.kind]
	}

	f.Title = f.Heading
	if f.ID != "" {
		f.Title += " " + visible(f.ID)
	}

	return f
}

// page serves a page whole.
func (h *Handler) page(w http.ResponseWriter, r *http.Request) {
	q, ok := newQuery(pageOf(r), r.URL.Query())
	if !ok {
		h.fail(w, http.StatusNotFound, "No lock has such a name.")

		return
	}

	var since time.Time
	if r.URL.Query().Has("freed") { // what was read before the release says that it is held
		since = time.Now()
	}

	seen := h.hub.get(r.Context(), q, since, patience)
	can := h.allowed(r, Release)

	body, err := h.fragment(q, seen, can, true)
	if err != nil {
		h.fail(w, http.StatusInternalServerError, "This page can't be shown.")

		return
	}

	f := h.frame(q)
	f.Events, f.Body, f.Now, f.Can = q.events(), template.HTML(body), seen.clock().UnixMilli(), can
	f.Freed = freed(r.URL.Query(), seen)

	status := http.StatusOK
	if seen.err != nil {
		status = http.StatusServiceUnavailable
	}

	h.send(w, status, f)
}

// freed is the message after a release by force. The address alone doesn't bring it.
func freed(values url.Values, s state) string {
	page, ok := s.data.(*lockPage)
	if token := values.Get("freed"); ok && token != "" && page.Generation > number(token) && number(token) > 0 {
		return "Token " + token + " was released by force."
	}

	return ""
}

// fail answers with a message.
func (h *Handler) fail(w http.ResponseWriter, status int, message string) {
	f := h.frame(query{})
	f.Heading, f.Title, f.Message = http.StatusText(status), http.StatusText(status), message

	h.send(w, status, f)
}

func (h *Handler) send(w http.ResponseWriter, status int, f *frame) {
	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, "frame.html", f); err != nil {
		h.options.Logger.Error("pglocker: a page can't be rendered", "page", f.Q.page, "error", err)
		http.Error(w, "This page can't be shown.", http.StatusInternalServerError)

		return
	}

	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}
