package ui_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"
	"github.com/ismurov/pglocker/ui"
)

// fetch asks for a page of a server. A page that isn't read in time says so, and is asked for again.
func fetch(t *testing.T, server *httptest.Server, address string) (status int, body string, header http.Header) {
	t.Helper()

	for {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+address, nil)
		must(t, err)

		if status, body, header = ask(t, server, request); !strings.Contains(body, "The table is being read.") {
			return status, body, header
		}
	}
}

// said is what a page says, without its escapes.
func said(body string) string { return html.UnescapeString(body) }

// ask sends a request, and follows no redirect.
func ask(t *testing.T, server *httptest.Server, request *http.Request) (status int, body string, header http.Header) {
	t.Helper()

	client := *server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	response, err := client.Do(request)
	must(t, err)

	defer response.Body.Close()

	text, err := io.ReadAll(response.Body)
	must(t, err)

	return response.StatusCode, string(text), response.Header
}

// allPages are addresses of each page.
var allPages = []string{
	"/", "/locks", "/locks?state=all", "/locks?state=free&prefix=a", "/locks?state=waited", "/locks?state=crashed", "/elections",
	"/semaphores", "/rwlocks", "/contention", "/lock?id=a", "/lock?id=no+such", "/group?kind=semaphore&name=s", "/group?kind=rwlock&name=r",
	"/release?id=a&token=1", "/static/style.css", "/static/app.js", "/static/icon.svg", "/no-such-page",
}

// TestMounted: every page is served under a prefix that the handler doesn't know, and keeps to its own origin.
func TestMounted(t *testing.T) {
	t.Parallel()

	db := newDB(t)
	locker := newLocker(t, db, "holder")

	_, err := locker.AcquireLock(t.Context(), "a", time.Hour)
	must(t, err)

	server := newServer(t, newHandler(t, locker, ui.Options{AllowRelease: true, Title: "<title>"}))
	link := regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)

	for _, page := range allPages {
		status, body, header := fetch(t, server, prefix+page)

		want := http.StatusOK
		if page == "/no-such-page" {
			want = http.StatusNotFound
		}

		if status != want {
			t.Errorf("%s: %d", page, status)
		}

		policy := header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") ||
			header.Get("X-Content-Type-Options") != "nosniff" || header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: headers %v", page, header)
		}

		if strings.Contains(body, "<title><") || strings.Contains(body, " style=") || strings.Contains(body, "onclick") {
			t.Errorf("%s: something in it is not escaped, or inline", page)
		}

		for _, found := range link.FindAllStringSubmatch(body, -1) {
			if u, err := url.Parse(found[1]); err != nil || u.IsAbs() || u.Host != "" || strings.HasPrefix(found[1], "/") {
				t.Errorf("%s: the link %q isn't relative", page, found[1])
			}
		}
	}

	bare := httptest.NewServer(http.StripPrefix("/here", newHandler(t, locker, ui.Options{})))
	defer bare.Close()

	if status, _, header := fetch(t, bare, "/here"); status != http.StatusMovedPermanently || header.Get("Location") != "here/" {
		t.Errorf("without its slash: %d, %q", status, header.Get("Location"))
	}

	if status, _, header := fetch(t, server, prefix+"/static/app.js?v=old"); status != http.StatusOK || header.Get("Cache-Control") != "no-store" {
		t.Errorf("an old script is kept: %v", header)
	}
}

// TestAuthorize: nothing is shown or done that the program refuses. What isn't allowed isn't offered.
func TestAuthorize(t *testing.T) {
	t.Parallel()

	db := newDB(t)
	locker := newLocker(t, db, "holder")

	lock, err := locker.AcquireLock(t.Context(), "a", time.Hour)
	must(t, err)

	server := newServer(t, newHandler(t, locker, ui.Options{
		AllowRelease: true,
		Authorize: func(r *http.Request, action ui.Action) bool {
			return r.URL.Query().Get("as") == "admin" || r.URL.Query().Get("as") == "guest" && action == ui.Read
		},
	}))

	for _, page := range append(allPages, "/events?page=overview") {
		if status, body, _ := fetch(t, server, prefix+page); status != http.StatusForbidden || strings.Contains(body, "holder") {
			t.Errorf("%s: %d for anyone", page, status)
		}
	}

	for as, want := range map[string]struct {
		form  int
		offer bool
	}{"guest": {http.StatusForbidden, false}, "admin": {http.StatusOK, true}} {
		_, body, _ := fetch(t, server, prefix+"/lock?id=a&as="+as)
		if got := strings.Contains(body, "Release by force"); got != want.offer || !strings.Contains(body, "holder") {
			t.Errorf("%s is offered to release: %t", as, got)
		}

		if status, _, _ := fetch(t, server, prefix+"/release?id=a&token=1&as="+as); status != want.form {
			t.Errorf("%s asks for the form: %d", as, status)
		}
	}

	request := post(t, server, "?as=guest", url.Values{"id": {"a"}, "token": {fmt.Sprint(lock.Generation)}, "reason": {"x"}})
	request.Header.Set("Sec-Fetch-Site", "same-origin")

	if status, _, _ := ask(t, server, request); status != http.StatusForbidden {
		t.Errorf("a guest releases: %d", status)
	}
}

func post(t *testing.T, server *httptest.Server, query string, form url.Values) *http.Request {
	t.Helper()

	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+prefix+"/release"+query, strings.NewReader(form.Encode()))
	must(t, err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")

	return request
}

// TestRelease: by POST alone, from the page itself alone, with a reason, of the tenure that was seen.
func TestRelease(t *testing.T) {
	t.Parallel()

	db := newDB(t)
	locker := newLocker(t, db, "holder")
	handler := newHandler(t, newLocker(t, db, "page"), ui.Options{
		AllowRelease: true, User: func(*http.Request) string { return "alice" },
	})
	server := newServer(t, handler)
	readOnly := newServer(t, newHandler(t, locker, ui.Options{}))

	const id = "<a> & b"

	lock, err := locker.AcquireLock(t.Context(), id, time.Hour)
	must(t, err)

	form := func(token int64, reason string) url.Values {
		return url.Values{"id": {id}, "token": {fmt.Sprint(token)}, "reason": {reason}}
	}
	good := form(lock.Generation, "gone")

	for name, test := range map[string]struct {
		server  *httptest.Server
		form    url.Values
		headers map[string]string
		want    int
	}{
		"another site":              {server, good, map[string]string{"Sec-Fetch-Site": "cross-site"}, http.StatusForbidden},
		"a sibling of the site":     {server, good, map[string]string{"Sec-Fetch-Site": "same-site"}, http.StatusForbidden},
		"another origin":            {server, good, map[string]string{"Origin": "https://evil.example"}, http.StatusForbidden},
		"another port":              {server, good, map[string]string{"Origin": "http://127.0.0.1:1"}, http.StatusForbidden},
		"the origin null":           {server, good, map[string]string{"Origin": "null"}, http.StatusForbidden},
		"an origin that isn't said": {server, good, nil, http.StatusForbidden},
		"no reason":                 {server, form(lock.Generation, "  "), nil, http.StatusBadRequest},
		"a long reason":             {server, form(lock.Generation, strings.Repeat("x", 501)), nil, http.StatusBadRequest},
		"a reason that isn't text":  {server, form(lock.Generation, "a\x00"), nil, http.StatusBadRequest},
		"another token":             {server, form(lock.Generation+1, "x"), nil, http.StatusConflict},
		"no such lock":              {server, url.Values{"id": {"none"}, "token": {"1"}, "reason": {"x"}}, nil, http.StatusNotFound},
		"no id":                     {server, url.Values{"token": {"1"}, "reason": {"x"}}, nil, http.StatusBadRequest},
		"an internal row":           {server, url.Values{"id": {"pglocker:watermark"}, "token": {"1"}, "reason": {"x"}}, nil, http.StatusBadRequest},
		"not allowed":               {readOnly, good, nil, http.StatusMethodNotAllowed},
	} {
		request := post(t, test.server, "", test.form)
		if test.headers == nil && name != "an origin that isn't said" {
			test.headers = map[string]string{"Sec-Fetch-Site": "same-origin"}
		}

		for key, value := range test.headers {
			request.Header.Set(key, value)
		}

		if status, body, _ := ask(t, test.server, request); status != test.want || strings.Contains(body, "<a>") {
			t.Errorf("%s: %d, want %d", name, status, test.want)
		}
	}

	// Nor by GET.
	if status, _, _ := fetch(t, server, prefix+"/release?"+good.Encode()); status != http.StatusOK {
		t.Errorf("the form: %d", status)
	}

	if now, err := locker.GetLockStatus(t.Context(), id); err != nil || *now != *lock {
		t.Fatalf("the lock was changed: %+v, %v", now, err)
	}

	request := post(t, server, "", good)
	request.Header.Set("Origin", server.URL)

	status, _, header := ask(t, server, request)
	if status != http.StatusSeeOther || !strings.HasPrefix(header.Get("Location"), "lock?") {
		t.Fatalf("released: %d, %q", status, header.Get("Location"))
	}

	if _, body, _ := fetch(t, server, prefix+"/"+header.Get("Location")); !strings.Contains(body, "was released by force") ||
		!strings.Contains(body, "Free") || !strings.Contains(body, "gone (by alice)") {
		t.Errorf("the page afterwards: %s", body)
	}

	var kinds []string

	for event, err := range locker.History(t.Context(), id, time.Time{}) {
		must(t, err)

		kinds = append(kinds, string(event.Kind)+" "+event.Reason)
	}

	if text := strings.Join(kinds, ", "); text != "granted , forced gone (by alice)" {
		t.Errorf("history: %s", text)
	}
}

// TestFromAnotherSite: a link from there leads to a page. A picture or a script has nothing be read.
func TestFromAnotherSite(t *testing.T) {
	t.Parallel()

	server := newServer(t, newHandler(t, newLocker(t, newDB(t), "page"), ui.Options{}))

	for _, test := range []struct {
		site, dest string
		want       int
	}{
		{"cross-site", "document", http.StatusOK},
		{"same-origin", "empty", http.StatusOK},
		{"none", "document", http.StatusOK},
		{"", "", http.StatusOK},
		{"cross-site", "image", http.StatusForbidden},
		{"cross-site", "empty", http.StatusForbidden},
		{"cross-site", "iframe", http.StatusForbidden},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+prefix+"/locks", nil)
		must(t, err)
		request.Header.Set("Sec-Fetch-Site", test.site)
		request.Header.Set("Sec-Fetch-Dest", test.dest)

		if status, _, _ := ask(t, server, request); status != test.want {
			t.Errorf("%s from %q: %d, want %d", test.dest, test.site, status, test.want)
		}
	}
}

// hostile are ids that want to be more than text.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, "javascript:alert(1)", "a&amp;b&lt;", "../../etc", "a/b?c=d&e#f%00%zz+ ",
	"\x1b[31mred\x07", "line\r\ndata: {}\r\n\r\n", "tab\tand\u2028line", "\u202egnp.exe", "\u200b\ufeffinvisible", "{{.}} ${x} `y`", "名前 🔒",
	strings.Repeat("long ", 204), strings.Repeat("w", 1024), "pglocker:", "]]>-->*/",
}

// TestHostileIDs: whatever an id is, it is shown as text, and its links lead to its page.
func TestHostileIDs(t *testing.T) {
	t.Parallel()

	db := newDB(t)
	locker := newLocker(t, db, `<b>"owner"</b>`)
	server := newServer(t, newHandler(t, locker, ui.Options{AllowRelease: true}))

	for _, id := range hostile {
		if strings.HasPrefix(id, pglocker.ReservedPrefix) {
			exec(t, db, "INSERT INTO pglocker.lock_statuses (lock_id, generation, expires_at) VALUES ($1, 1, clock_timestamp() + interval '1 hour')", id)

			continue
		}

		_, err := locker.AcquireLock(t.Context(), id, time.Hour)
		must(t, err)

		semaphore, err := locker.NewSemaphore(id[:min(len(id), 900)], 2)
		must(t, err)

		permit, err := semaphore.TryAcquire(t.Context(), time.Hour)
		must(t, err)

		defer permit.Unlock(context.WithoutCancel(t.Context()))
	}

	forbidden := []string{"<script>alert", "<img", "<b>", "onmouseover='", `"javascript`, "\x1b", "\x07", "\u202e", "\u200b", "\u2028"}
	check := func(page string) string {
		t.Helper()

		status, body, _ := fetch(t, server, prefix+page)
		if status != http.StatusOK {
			t.Errorf("%.80q: %d", page, status)
		}

		text := body
		for _, attribute := range regexp.MustCompile(` value="[^"]*"`).FindAllString(body, -1) { // what was typed stays
			text = strings.Replace(text, attribute, "", 1)
		}

		for _, bad := range forbidden {
			if strings.Contains(text, bad) {
				t.Errorf("%.80q contains %q", page, bad)
			}
		}

		return body
	}

	list := check("/locks")
	check("/")
	check("/semaphores")
	check("/contention")

	for _, id := range hostile {
		query := url.Values{"id": {id}, "token": {"2"}, "prefix": {id}, "name": {id[:min(len(id), 900)]}, "kind": {"semaphore"}}.Encode()
		for _, page := range []string{"/lock?", "/locks?", "/semaphores?", "/group?", "/release?"} {
			check(page + query)
		}

		link := "lock?id=" + url.QueryEscape(id)
		if body := check("/" + link); !strings.Contains(body, `class="pill held"`) && !strings.Contains(body, "Minimum hold") {
			t.Errorf("the page of %.40q doesn't show that it is held", id)
		}

		if !strings.HasPrefix(id, pglocker.ReservedPrefix) && !strings.Contains(said(list), `href="`+link+`"`) {
			t.Errorf("no link to %.40q", id)
		}
	}

	for _, id := range []string{"", "a\x00", "\xff", strings.Repeat("x", 1025)} {
		if status, _, _ := fetch(t, server, prefix+"/lock?id="+url.QueryEscape(id)); status != http.StatusNotFound {
			t.Errorf("the id %.10q: %d", id, status)
		}
	}
}

// TestPaging: each lock is on one page, and a search by prefix finds what begins with it.
func TestPaging(t *testing.T) {
	t.Parallel()

	db := newDB(t)
	server := newServer(t, newHandler(t, newLocker(t, db, ""), ui.Options{Rows: 40}))

	exec(t, db, `INSERT INTO pglocker.lock_statuses (lock_id, generation, expires_at)
		SELECT 'lock-' || to_char(n, 'FM000'), 1, clock_timestamp() - interval '1 hour' FROM generate_series(1, 100) AS n`)
	exec(t, db, `INSERT INTO pglocker.lock_statuses (lock_id, generation, expires_at)
		SELECT 'pglocker:semaphore:s' || to_char(n, 'FM000') || ':' || s, 1, clock_timestamp() - interval '1 hour'
		  FROM generate_series(1, 100) AS n, generate_series(1, 70) AS s`)

	for page, want := range map[string]int{"/locks?state=free": 100, "/locks?state=all&prefix=lock-09": 10, "/locks?state=held": 0, "/semaphores": 100} {
		seen := map[string]int{}
		link := regexp.MustCompile(`<a href="((?:lock|group)\?[^"]*)"><bdi`)
		next := regexp.MustCompile(`href="([^"]*)">Next page`)

		for pages := 0; page != ""; pages++ {
			_, body, _ := fetch(t, server, prefix+page)
			for _, found := range link.FindAllStringSubmatch(body, -1) {
				seen[found[1]]++
			}

			page = ""
			if found := next.FindStringSubmatch(body); found != nil {
				page = "/" + strings.ReplaceAll(found[1], "&amp;", "&")
			}

			if pages > 10 {
				t.Fatal("no end")
			}
		}

		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s is listed %d times", id, n)
			}
		}

		if len(seen) != want {
			t.Errorf("%d are listed, want %d", len(seen), want)
		}
	}
}

// openStream begins a stream, and returns its lines.
func openStream(t *testing.T, server *httptest.Server, query string) *bufio.Scanner {
	t.Helper()

	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+prefix+"/events?"+query, nil)
	must(t, err)

	response, err := server.Client().Do(request)
	must(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })

	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream: %d, %v", response.StatusCode, response.Header)
	}

	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)

	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			return lines
		}
	}

	t.Fatal("the stream has no event")

	return nil
}

// TestStreamsEnd: with the shutdown of their server, whose write timeout they outlive, and with the handler.
func TestStreamsEnd(t *testing.T) {
	t.Parallel()

	db := newDB(t)
	handler := newHandler(t, newLocker(t, db, ""), ui.Options{Refresh: 100 * time.Millisecond})

	serve := func() *httptest.Server {
		server := httptest.NewUnstartedServer(mounted(handler))
		server.Config.WriteTimeout = 300 * time.Millisecond
		server.Start()

		return server
	}

	first, second := serve(), serve()
	defer first.Close()
	defer second.Close()

	ends, stays := openStream(t, first, "page=locks"), openStream(t, second, "page=locks")

	for begun := time.Now(); time.Since(begun) < time.Second; {
		if !ends.Scan() || !stays.Scan() {
			t.Fatal("a stream ended with the server's write timeout")
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, first.Config.Shutdown(ctx))

	for ends.Scan() { // until it ends
	}

	if !stays.Scan() {
		t.Error("a stream of another server ended")
	}

	handler.Close()

	for stays.Scan() {
	}

	if status, _, _ := fetch(t, second, prefix+"/locks"); status != http.StatusServiceUnavailable {
		t.Errorf("after Close: %d", status)
	}
}

// TestDatabaseDown: the page says so, keeps the last state, and comes back by itself.
func TestDatabaseDown(t *testing.T) {
	t.Parallel()

	if testing.Short() {
		t.Skip("needs a database")
	}

	postgres, err := pgtesting.StartServer(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = postgres.Stop() })

	db, err := sql.Open("pgx", postgres.URL())
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))

	locker := newLocker(t, db, "holder")

	_, err = locker.AcquireLock(t.Context(), "a", time.Hour)
	must(t, err)

	server := newServer(t, newHandler(t, locker, ui.Options{}))

	if status, body, _ := fetch(t, server, prefix+"/lock?id=a"); status != http.StatusOK || !strings.Contains(body, "holder") ||
		!strings.Contains(body, "There is no history") {
		t.Errorf("before: %d\n%s", status, body)
	}

	must(t, postgres.Kill())

	down := func(page string, has ...string) {
		t.Helper()

		for begun := time.Now(); ; {
			status, body, _ := fetch(t, server, prefix+page)
			if status == http.StatusServiceUnavailable {
				for _, text := range append(has, "The database doesn't answer.") {
					if !strings.Contains(said(body), text) {
						t.Errorf("%s lacks %q:\n%s", page, text, body)
					}
				}

				if strings.Contains(body, fmt.Sprint(postgres.Port())) {
					t.Errorf("%s tells where the database is", page)
				}

				return
			}

			if time.Since(begun) > patience {
				t.Fatalf("%s: %d", page, status)
			}
		}
	}
	down("/lock?id=a", "holder", "Below is what it showed at")
	down("/locks", "Nothing was read before.")

	stream := openStream(t, server, "page=lock&id=a")
	if !strings.Contains(stream.Text(), `"failed":true`) {
		t.Errorf("the stream: %.200s", stream.Text())
	}

	must(t, postgres.Start(t.Context()))

	for stream.Scan() {
		if text := stream.Text(); strings.HasPrefix(text, "data: ") && !strings.Contains(text, `"failed"`) {
			break
		}
	}

	if status, body, _ := fetch(t, server, prefix+"/lock?id=a"); status != http.StatusOK || strings.Contains(said(body), "doesn't answer") {
		t.Errorf("afterwards: %d", status)
	}
}

// TestWhatIsMissing: of other tables the pages show what there is, and say what there isn't.
func TestWhatIsMissing(t *testing.T) {
	t.Parallel()

	db := databases.Open(t, databases.NewDatabase(t).String())
	exec(t, db, "CREATE TABLE public.three (lock_id text PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL)")

	open := func(table string) (*pglocker.Locker, *httptest.Server) {
		locker, err := pglocker.New(db, &pglocker.Config{Scheme: "public", Table: table})
		must(t, err)

		return locker, newServer(t, newHandler(t, locker, ui.Options{}))
	}

	locker, server := open("three")

	_, err := locker.AcquireLock(t.Context(), "a", time.Hour)
	must(t, err)

	for _, page := range allPages[:14] {
		status, body, _ := fetch(t, server, prefix+page)
		if status != http.StatusOK || strings.Count(body, "<p>The table has three columns") != 1 || strings.Count(body, "<p>There is no history") > 1 {
			t.Errorf("%s of three columns: %d\n%s", page, status, body)
		}
	}

	if _, body, _ := fetch(t, server, prefix+"/locks"); !strings.Contains(body, `href="lock?id=a"`) || !strings.Contains(body, "not known") {
		t.Errorf("the list: %s", body)
	}

	_, server = open("no_such_table")
	if status, body, _ := fetch(t, server, prefix+"/"); status != http.StatusServiceUnavailable || !strings.Contains(body, "MigrateDB") {
		t.Errorf("without a table: %d\n%s", status, body)
	}
}

// TestHangingDatabase: a database that takes connections and doesn't answer is noticed.
func TestHangingDatabase(t *testing.T) {
	t.Parallel()

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()

	db, err := sql.Open("pgx", "postgres://postgres@"+silent.Addr().String()+"/postgres?sslmode=disable")
	must(t, err)
	defer db.Close()

	handler := newHandler(t, newLocker(t, db, ""), ui.Options{})
	server := newServer(t, handler)

	if status, body, _ := fetch(t, server, prefix+"/"); status != http.StatusServiceUnavailable || !strings.Contains(said(body), "doesn't answer") {
		t.Errorf("%d:\n%s", status, body)
	}
}

// TestNew: mistakes are found at once.
func TestNew(t *testing.T) {
	t.Parallel()

	db, err := sql.Open("pgx", "")
	must(t, err)
	defer db.Close()

	locker := newLocker(t, db, "")

	if _, err := ui.New(nil, ui.Options{}); !errors.Is(err, ui.ErrLockerIsNil) {
		t.Errorf("no locker: %v", err)
	}

	for _, options := range []ui.Options{{Refresh: time.Millisecond}, {Refresh: -1}, {Rows: -1}, {Rows: 1001}} {
		if _, err := ui.New(locker, options); !errors.Is(err, ui.ErrInvalidOptions) {
			t.Errorf("%+v: %v", options, err)
		}
	}
}
