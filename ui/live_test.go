package ui_test

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"
	"github.com/ismurov/pglocker/ui"
)

// TestLive: a page shows a grant, a hand-over, a release and a loss within a second. A step isn't measured while the
// machine is too busy for that. Rounds go on until each kind of step was measured.
func TestLive(t *testing.T) {
	b := newBrowser(t)
	db := newDB(t)
	first, second := newLocker(t, db, "first"), newLocker(t, db, "second")
	server := newServer(t, newHandler(t, newLocker(t, db, "page"), ui.Options{}))

	const id = "job"

	b.open(server, "lock?id="+id)
	b.await("main", "There is no such row")

	// calm reports whether the browser answers at once, and the database to what the page asks it: a page that
	// is read in more than 50 ms is read again after ten times as long.
	asks := newLocker(t, db, "asks")
	calm := func() bool {
		begun := time.Now()

		_, err := asks.DatabaseTime(t.Context())
		must(t, err)

		for _, err := range asks.Locks(t.Context(), pglocker.LocksFilter{Prefix: id}) {
			must(t, err)
		}

		for _, err := range asks.History(t.Context(), id, begun.Add(-time.Hour)) {
			must(t, err)
		}

		b.text("h1")

		return time.Since(begun) < 40*time.Millisecond
	}

	measured := map[string]bool{}
	step := func(what string, change func(), selector, text string) {
		t.Helper()

		before := calm()

		change()

		took := b.await(selector, text)

		switch after := calm(); {
		case !before || !after:
			t.Logf("%s: shown after %s, on a busy machine", what, took)
		case took >= time.Second:
			t.Errorf("%s: shown after %s", what, took)
		default:
			measured[what] = true

			t.Logf("%s: shown after %s", what, took)
		}
	}

	for begun, round := time.Now(), 0; round < 3 || len(measured) < 4; round++ {
		if time.Since(begun) > 2*patience {
			t.Fatalf("in %d rounds the machine was too busy to measure more than %v", round, measured)
		}

		var (
			lock *pglocker.Lock
			err  error
		)

		step("a grant", func() {
			lock, err = first.TryLock(t.Context(), id, time.Minute)
			must(t, err)
		}, "#lock-state", "Held")

		if text := b.text(".facts"); !strings.Contains(text, "first") {
			t.Errorf("granted: %s", text)
		}

		waits := make(chan *pglocker.Lock, 1)

		go func() {
			lock, err := second.Lock(context.WithoutCancel(t.Context()), id, time.Minute)
			if err != nil {
				t.Error(err)
			}

			waits <- lock
		}()

		b.await("#lock-state", "Waited for")
		step("a hand-over", func() { must(t, lock.Unlock(t.Context())) }, ".facts", "second")

		lock = <-waits
		if lock == nil {
			return
		}

		step("a release", func() { must(t, lock.Unlock(t.Context())) }, "#lock-state", "Free")

		// A lease that nobody renews, as of a holder that has crashed.
		step("a loss", func() {
			status, err := first.AcquireLock(t.Context(), id, time.Minute)
			must(t, err)
			b.await("#lock-state", "Held")
			exec(t, db, "UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp() WHERE generation = $1", status.Generation)
		}, "#lock-state", "Not released")
	}

	b.await(".tenures", "Not released")

	// The timeline has a lane for each holder.
	if n := eval[int](b, "document.querySelectorAll('.lane:not(.axis)').length"); n != 2 {
		t.Errorf("%d lanes", n)
	}

	if n := eval[int](b, "document.querySelectorAll('.bar.crashed').length"); n == 0 {
		t.Error("the timeline shows no crash")
	}
}

// TestReleaseByKeyboard: a lock is released by force with keys alone, from the list to the end.
func TestReleaseByKeyboard(t *testing.T) {
	b := newBrowser(t)
	db := newDB(t)
	holder := newLocker(t, db, "holder")
	server := newServer(t, newHandler(t, newLocker(t, db, "page"), ui.Options{AllowRelease: true}))

	lock, err := holder.AcquireLock(t.Context(), "stuck job", time.Hour)
	must(t, err)

	// tabTo presses Tab until the focus is on an element with that text. Each stop on the way can be seen.
	tabTo := func(text string) {
		t.Helper()

		for range 40 {
			b.do(chromedp.KeyEvent(kb.Tab))

			stop := eval[struct{ Text, Outline string }](b, `(() => { const e = document.activeElement, s = getComputedStyle(e);
				return {Text: (e.innerText || e.id || e.tagName).trim(), Outline: s.outlineStyle + ' ' + s.outlineWidth} })()`)
			if stop.Outline == "none 0px" || strings.HasPrefix(stop.Outline, "none") {
				t.Errorf("the focus on %q can't be seen", stop.Text)
			}

			if strings.Contains(stop.Text, text) {
				return
			}
		}

		t.Fatalf("Tab doesn't reach %q", text)
	}

	b.open(server, "")
	tabTo("Skip to the content")
	tabTo("stuck job")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.await("h1", "stuck job")
	b.await("#live", "Live")

	// While the page changes, the focus stays.
	tabTo("Release by force")

	if _, err := holder.RefreshLock(t.Context(), lock, time.Hour); err != nil {
		t.Fatal(err)
	}

	b.await(".facts .num", "3")

	if text := eval[string](b, "document.activeElement.innerText"); !strings.Contains(text, "Release by force") {
		t.Errorf("the focus is on %q after a change", text)
	}

	b.do(chromedp.KeyEvent(kb.Enter))
	b.await("h1", "Release by force")
	tabTo("reason")
	b.do(chromedp.KeyEvent("host is gone"))
	tabTo("Release this lock")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.await(".note", "was released by force")
	b.await("#lock-state", "Free")
	b.await(".tenures", "host is gone")

	if now, err := holder.GetLockStatus(t.Context(), "stuck job"); err != nil || now.Owner != "" {
		t.Errorf("afterwards: %+v, %v", now, err)
	}
}

// TestForgedRequest: another site can't have a viewer's browser release a lock, or show the page in a frame.
func TestForgedRequest(t *testing.T) {
	b := newBrowser(t)
	b.ignore = true // the refusals are written to the console, and there are two origins

	db := newDB(t)
	locker := newLocker(t, db, "holder")
	server := newServer(t, newHandler(t, locker, ui.Options{AllowRelease: true}))

	lock, err := locker.AcquireLock(t.Context(), "a", time.Hour)
	must(t, err)

	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<form method="post" action="` + server.URL + prefix + `/release"><input name="id" value="a">
			<input name="token" value="2"><input name="reason" value="evil"></form><iframe src="` + server.URL + prefix + `/"></iframe>`))
	}))
	t.Cleanup(evil.Close)

	b.visit(evil.URL)
	b.do(chromedp.WaitReady(chromedp.CSS("form")))
	b.do(chromedp.Evaluate[chromedp.Void]("document.querySelector('form').submit()"))
	b.await("main", "came from another site")

	if now, err := locker.GetLockStatus(t.Context(), "a"); err != nil || *now != *lock {
		t.Errorf("afterwards: %+v, %v", now, err)
	}

	b.mu.Lock()
	defer b.mu.Unlock()

	if !slices.ContainsFunc(b.trouble, func(text string) bool { return strings.Contains(text, "frame") }) {
		t.Errorf("the page was shown in a frame: %q", b.trouble)
	}

	b.trouble, b.origins = nil, map[string]bool{}
}

// TestRestarts: a page that stays open comes back by itself and shows what is true, after a restart of the database
// and after one of the program.
func TestRestarts(t *testing.T) {
	b := newBrowser(t)

	postgres, err := pgtesting.StartServer(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = postgres.Stop() })

	db, err := sql.Open("pgx", postgres.URL())
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))

	first, second := newLocker(t, db, "first"), newLocker(t, db, "second")

	status, err := first.AcquireLock(t.Context(), "a", time.Hour)
	must(t, err)

	serve := func(address string) (*httptest.Server, *ui.Handler) {
		handler := newHandler(t, newLocker(t, db, "page"), ui.Options{})
		server := httptest.NewUnstartedServer(mounted(handler))

		if address != "" {
			_ = server.Listener.Close()
			server.Listener, err = net.Listen("tcp", address)
			must(t, err)
		}

		server.Start()
		t.Cleanup(func() {
			handler.Close()
			server.Close()
		})

		return server, handler
	}
	server, handler := serve("")

	b.open(server, "locks")
	b.await("tbody", "first")
	must(t, postgres.Kill())
	b.await("#live", "doesn't answer")
	b.await(".note", "Below is what it showed")
	b.await("tbody", "first")
	must(t, postgres.Start(t.Context()))
	must(t, first.ReleaseLock(t.Context(), status))

	_, err = second.AcquireLock(t.Context(), "a", time.Hour)
	must(t, err)

	b.await("#live", "Live")
	b.await("tbody", "second")

	if text := b.text("main"); strings.Contains(text, "doesn't answer") || strings.Contains(text, "first") {
		t.Errorf("after the restart of the database: %s", text)
	}

	// The program ends, in good order, and another begins at its address.
	b.mu.Lock()
	b.ignore = true // that connections are refused is written to the console
	b.mu.Unlock()

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, server.Config.Shutdown(ctx))
	handler.Close()
	b.await("#live", "Connecting")

	status, err = second.GetLockStatus(t.Context(), "a")
	must(t, err)
	must(t, second.ReleaseLock(t.Context(), status))
	serve(server.Listener.Addr().String())
	b.await("#live", "Live")
	b.await("main", "No lock is here")
}

// TestPlain: without JavaScript each page shows the same, and a reload shows what has changed.
func TestPlain(t *testing.T) {
	b := newBrowser(t)
	db := newDB(t)
	locker := newLocker(t, db, "holder")
	server := newServer(t, newHandler(t, locker, ui.Options{AllowRelease: true}))

	_, err := locker.AcquireLock(t.Context(), "a", time.Hour)
	must(t, err)

	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})

	text := func(selector string) string {
		t.Helper()

		ctx, cancel := b.within()
		defer cancel()

		text, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(selector)))
		must(t, err)

		return text
	}

	b.visit(server.URL + prefix + "/locks")

	if list := text("main"); !strings.Contains(list, "holder") || !strings.Contains(list, "ago") {
		t.Errorf("the list: %s", list)
	}

	if foot := text("footer"); !strings.Contains(foot, "Reload") {
		t.Errorf("the foot: %s", foot)
	}

	b.do(chromedp.Click(chromedp.CSS("tbody a")), chromedp.WaitVisible(chromedp.CSS(".danger")),
		chromedp.Click(chromedp.CSS(".danger")), chromedp.WaitVisible(chromedp.CSS("#reason")),
		chromedp.SendKeys(chromedp.CSS("#reason"), "by hand"), chromedp.Click(chromedp.CSS("button.danger")),
		chromedp.WaitVisible(chromedp.CSS(".note.good")))

	if state := text("main"); !strings.Contains(state, "Free") || !strings.Contains(state, "by hand") {
		t.Errorf("afterwards: %s", state)
	}
}

// TestReadable: what a screen reader and a narrow window need is on each page, with hostile ids in it too.
func TestReadable(t *testing.T) {
	b := newBrowser(t)
	db := newDB(t)
	fillShop(t, db, time.Now())

	locker := newLocker(t, db, "holder")
	server := newServer(t, newHandler(t, locker, ui.Options{AllowRelease: true, Title: strings.Repeat("a long title ", 20)}))

	for _, id := range hostile {
		if !strings.HasPrefix(id, pglocker.ReservedPrefix) {
			_, err := locker.AcquireLock(t.Context(), id, time.Hour)
			must(t, err)
		}
	}

	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 360, Height: 740, DeviceScaleFactor: 1, Mobile: true})

	shown, err := locker.GetLockStatus(t.Context(), "nightly-import")
	must(t, err)

	pages := []string{
		"", "locks?state=all", "elections", "semaphores", "rwlocks", "contention", "lock?id=nightly-import",
		"lock?id=pglocker%3Aelection%3Ascheduler", "group?kind=semaphore&name=payments-api", "group?kind=rwlock&name=price-list", fmt.Sprint("release?id=nightly-import&token=", shown.Generation),
	}
	for _, id := range hostile {
		pages = append(pages, "lock?id="+url.QueryEscape(id))
	}

	for _, page := range pages {
		b.visit(server.URL + prefix + "/" + page)

		if !strings.HasPrefix(page, "release") {
			b.await("#live", "Live")
		}

		for what, script := range map[string]string{
			"is wider than the window":               "document.documentElement.scrollWidth > innerWidth",
			"has no main, header, nav or footer":     "!['main', 'body > header', 'nav[aria-label]', 'body > footer'].every(s => document.querySelector(s))",
			"has not one heading of the first level": "document.querySelectorAll('h1').length != 1",
			"has a table without a caption":          "[...document.querySelectorAll('table')].some(t => !t.caption?.textContent)",
			"has a table without scopes":             "[...document.querySelectorAll('th')].some(t => !t.scope)",
			"has a field without a label":            "[...document.querySelectorAll('input:not([type=hidden]), textarea')].some(e => !e.labels.length)",
			"has a link without a text":              "[...document.querySelectorAll('a')].some(a => !a.textContent.trim())",
			"has a picture without a name":           "[...document.querySelectorAll('[role=img]')].some(e => !e.getAttribute('aria-label'))",
			"has an id twice":                        "[...document.querySelectorAll('[id]')].some(e => document.querySelectorAll('#' + CSS.escape(e.id)).length > 1)",
			"says more than it should by itself":     "document.querySelectorAll('[aria-live], [role=status], [role=alert]').length != 1",
			"ran what an id says":                    "!!document.querySelector('main img, main script, main style')",
			"has no language":                        "!document.documentElement.lang",
		} {
			if eval[bool](b, script) {
				t.Errorf("%.60q %s", page, what)
			}
		}
	}
}
