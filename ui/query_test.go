package ui

import (
	"html"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ismurov/pglocker"
)

// FuzzQuery: an address leads to the page that it was made for, whatever is in it.
func FuzzQuery(f *testing.F) {
	for _, id := range []string{"a", "<script>alert(1)</script>", `"'&%00;`, "a/b/../c?d=e#f", "\x1b[31m\r\n", "\u202eabc", "pglocker:semaphore:s:1", strings.Repeat("é", 512)} {
		f.Add(id, "held", "1h")
	}

	f.Fuzz(func(t *testing.T, id, state, span string) {
		for _, page := range []string{"locks", "lock", "group", "semaphores", "overview"} {
			values := url.Values{
				"id": {id}, "name": {id}, "prefix": {id}, "after": {id}, "state": {state}, "span": {span}, "kind": {string(pglocker.KindSemaphore)},
			}

			q, ok := newQuery(page, values)
			if !ok {
				if utf8.ValidString(id) && !strings.Contains(id, "\x00") && id != "" && len(id) <= pglocker.MaxLockIDBytes {
					t.Fatalf("%s: %q is refused", page, id)
				}

				continue
			}

			for _, address := range []string{q.url(), q.events()} {
				u, err := url.Parse(address)
				if err != nil || u.Host != "" || u.Scheme != "" || strings.HasPrefix(u.Path, "/") || strings.Count(strings.TrimPrefix(u.Path, "./"), "/") > 0 {
					t.Fatalf("%q: %v", address, err)
				}

				if again, ok := newQuery(page, u.Query()); !ok || again != q {
					t.Fatalf("%q: %+v, want %+v", address, again, q)
				}
			}
		}
	})
}

// FuzzText: whatever an id is, what is shown of it is text, in one line, and can be seen.
func FuzzText(f *testing.F) {
	for _, id := range []string{"<script>", `"'&`, "\x1b[31m\r\n\t", "\u202eabc\u200b\ufeff", "\xff", "名前", "a\u0301"} {
		f.Add(id)
	}

	f.Fuzz(func(t *testing.T, id string) {
		for _, c := range visible(id) {
			if c != ' ' && !printable(c) {
				t.Fatalf("%q shows %q", id, c)
			}
		}

		text := string(idHTML(id))
		for _, tag := range []string{`<bdi class="id">`, `</bdi>`, `<span class="esc">`, `</span>`} {
			text = strings.ReplaceAll(text, tag, "")
		}

		if strings.ContainsAny(text, `<>"'`) || html.UnescapeString(text) != visible(id) {
			t.Fatalf("%q becomes %q", id, text)
		}
	})
}
