package ui_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	osexec "os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/ismurov/pglocker/ui"
)

// prefix is where tests mount a handler.
const prefix = "/admin/locks"

func mounted(handler *ui.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(prefix+"/", http.StripPrefix(prefix, handler))

	return mux
}

// patience is how long a browser may take for a step on a busy machine.
const patience = 60 * time.Second

// browser is a window of a headless Chromium. It fails the test if a page writes to its console, or asks another
// origin for anything.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	origins map[string]bool
	trouble []string
	// ignore: connections break, because the test breaks them.
	ignore bool
	once   sync.Once
}

// newBrowser starts a browser. Without Chromium it skips the test, but not in CI.
func newBrowser(t *testing.T) *browser {
	t.Helper()

	if testing.Short() {
		t.Skip("needs a browser and a database")
	}

	program := ""

	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := osexec.LookPath(name); err == nil {
			program = path

			break
		}
	}

	switch {
	case program != "":
	case os.Getenv("CI") == "true":
		t.Fatal("Chromium is not installed")
	default:
		t.Skip("Chromium is not installed")
	}

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-component-update", true), chromedp.WSURLReadTimeout(patience))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}

	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(stop)

	b := &browser{t: t, origins: map[string]bool{}}

	var end context.CancelFunc

	b.ctx, end = chromedp.NewContext(allocator, chromedp.WithListener(b.listen))
	t.Cleanup(end)

	if err := chromedp.Do(b.ctx); err != nil { // starts it
		t.Fatal(err)
	}

	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})

	return b
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()

	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(event.Request.URL); err == nil && u.Host != "" {
			b.origins[u.Scheme+"://"+u.Host] = true
		}
	case *runtime.EventExceptionThrown:
		b.trouble = append(b.trouble, event.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		b.trouble = append(b.trouble, "the page wrote to its console: "+string(event.Type))
	case *log.EventEntryAdded:
		if event.Entry.Source != log.EntrySourceNetwork || !b.ignore {
			b.trouble = append(b.trouble, string(event.Entry.Level)+": "+event.Entry.Text+" "+event.Entry.URL)
		}
	}
}

// check fails the test for what the pages did and may not.
func (b *browser) check() {
	b.mu.Lock()
	defer b.mu.Unlock()

	if len(b.origins) > 1 {
		b.t.Errorf("requests went to %v", b.origins)
	}

	for _, text := range b.trouble {
		b.t.Error(text)
	}
}

// visit opens a page. When the test ends, it is left before its server is closed.
func (b *browser) visit(address string) {
	b.t.Helper()
	b.once.Do(func() {
		b.t.Cleanup(func() {
			b.do(chromedp.Navigate("about:blank"))
			b.check()
		})
	})
	b.do(chromedp.Navigate(address))
}

// open opens a page of a server, and waits until it is live.
func (b *browser) open(server *httptest.Server, page string) {
	b.t.Helper()
	b.visit(server.URL + prefix + "/" + page)
	b.await("#live", "Live")
}

// within bounds a step.
func (b *browser) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.ctx, patience)
}

// do takes steps in the page.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()

	ctx, cancel := b.within()
	defer cancel()

	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func call[P, R any](b *browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()

	ctx, cancel := b.within()
	defer cancel()

	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		b.t.Fatal(err)
	}

	return result
}

// eval runs a script in the page.
func eval[T any](b *browser, script string) T {
	b.t.Helper()

	ctx, cancel := b.within()
	defer cancel()

	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		b.t.Fatalf("%v: %s", err, script)
	}

	return value
}

// text is what a part of the page shows.
func (b *browser) text(selector string) string {
	b.t.Helper()

	return eval[string](b, "[...document.querySelectorAll("+quoted(selector)+")].map(e => e.innerText).join('\\n')")
}

// await waits until a part of the page has a text, and returns how long that took. The page's own events wake it.
func (b *browser) await(selector, text string) time.Duration {
	b.t.Helper()

	begun := time.Now()
	script := `new Promise(done => {
		const look = () => [...document.querySelectorAll(` + quoted(selector) + `)].some(e => e.innerText.includes(` + quoted(text) + `)) &&
			(observer.disconnect(), done(true));
		const observer = new MutationObserver(look);
		observer.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
		look();
	})`

	ctx, cancel := b.within()
	defer cancel()

	for {
		_, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script, chromedp.EvalAwaitPromise))

		switch {
		case err == nil:
			return time.Since(begun)
		case ctx.Err() != nil || !strings.Contains(err.Error(), "navigated"): // it shows another page now
			b.t.Fatalf("%q never shows %q: %v\n%s", selector, text, err, b.text("main"))
		}
	}
}

func quoted(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`).Replace(text) + "'"
}
