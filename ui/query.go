package ui

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ismurov/pglocker"
)

// pageInfo is a page of the handler.
type pageInfo struct {
	name  string // of its template
	path  string // its pattern
	title string
	about string
	nav   bool
}

var pages = []pageInfo{
	{"overview", "{$}", "Overview", "", true},
	{"locks", "locks", "Locks", "Each row of the table that is no recipe's.", true},
	{"elections", "elections", "Elections", "Who leads, since when, and who led before.", true},
	{"semaphores", "semaphores", "Semaphores", "A square is a slot. Slots are made when they are first needed.", true},
	{"rwlocks", "rwlocks", "Read-write locks", "Many readers, or one writer.", true},
	{"contention", "contention", "Contention", "The busiest locks of the last hour, by the history.", true},
	{"lock", "lock", "Lock", "", false},
	{"group", "group", "Slots", "", false},
}

// query says what a page shows. Viewers with equal queries share what is read.
type query struct {
	page   string
	state  string // of the page locks: one of states
	prefix string
	after  string
	id     string // of the page lock
	kind   pglocker.Kind
	name   string // of the page group
	span   time.Duration
}

// states are what the page locks can be asked for.
var states = []string{"held", "waited", "crashed", "free", "all"}

// spans are what a timeline can show.
var spans = []time.Duration{15 * time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}

// scans reports whether the page reads the whole table to find its rows, which takes long if that is large. The pages of
// one lock, say, don't wait for such a read.
func (q query) scans() bool {
	return q.page == "overview" || q.page == "locks" || q.page == "contention"
}

// newQuery reads the query of a page. ok is false if there can be nothing of that kind.
func newQuery(page string, values url.Values) (q query, ok bool) {
	q = query{page: page}

	for _, text := range []string{values.Get("prefix"), values.Get("after"), values.Get("id"), values.Get("name")} {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) || len(text) > pglocker.MaxLockIDBytes {
			return q, false
		}
	}

	switch page {
	case "locks":
		q.state = "held"
		if s := values.Get("state"); slices.Contains(states, s) {
			q.state = s
		}

		fallthrough
	case "elections", "semaphores", "rwlocks":
		q.prefix, q.after = values.Get("prefix"), values.Get("after")
	case "lock":
		q.id = values.Get("id")
		ok = q.id != ""
	case "group":
		q.kind, q.name = pglocker.Kind(values.Get("kind")), values.Get("name")
		ok = q.name != "" && (q.kind == pglocker.KindSemaphore || q.kind == pglocker.KindRWLock)
	case "overview", "contention":
	default:
		return q, false
	}

	if page == "lock" || page == "group" {
		q.span = time.Hour
		if d, err := time.ParseDuration(values.Get("span")); err == nil && slices.Contains(spans, d) {
			q.span = d
		}

		return q, ok
	}

	return q, true
}

// values is the reverse of newQuery.
func (q query) values() url.Values {
	values := url.Values{}

	for key, text := range map[string]string{
		"state": q.state, "prefix": q.prefix, "after": q.after, "id": q.id, "kind": string(q.kind), "name": q.name,
	} {
		if text != "" {
			values.Set(key, text)
		}
	}

	if q.span != 0 && q.span != time.Hour {
		values.Set("span", q.span.String())
	}

	return values
}

// url is the address of the page, relative to any other.
func (q query) url() string {
	page := q.page
	if page == "overview" {
		page = "./"
	}

	return withValues(page, q.values())
}

// events is the address of the stream of its changes.
func (q query) events() string {
	values := q.values()
	values.Set("page", q.page)

	return withValues("events", values)
}

func withValues(address string, values url.Values) string {
	if len(values) > 0 {
		address += "?" + values.Encode()
	}

	return address
}

func lockURL(id string) string { return query{page: "lock", id: id}.url() }

func groupURL(kind pglocker.Kind, name string) string {
	return query{page: "group", kind: kind, name: name}.url()
}

// pageOf is the page of a request.
func pageOf(r *http.Request) string {
	for _, p := range pages {
		if r.URL.Path == "/"+p.path {
			return p.name
		}
	}

	return "overview"
}
