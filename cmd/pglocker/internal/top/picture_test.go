//go:build unix

package top_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"html"
	"image/color"
	"os"
	"strings"
	"testing"
	"time"

	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"

	"github.com/ismurov/pglocker"
)

var update = flag.Bool("update", false, "draw the pictures of the documentation anew")

// TestPicture draws the pictures of docs/top.md, of a real screen: go test ./internal/top -run TestPicture -update.
func TestPicture(t *testing.T) {
	if !*update {
		t.Skip("it draws pictures with -update")
	}

	url, db := newDatabase(t)
	x := start(t, url, 80, 24)
	aDay(t, db, x)

	draw := func(name string, x *terminal) {
		t.Helper()

		x.mu.Lock()
		defer x.mu.Unlock()

		if err := os.WriteFile("../../../../docs/img/"+name, []byte(svg(x)), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	x.shows("3h12m", "licence-seats", "changes/s")
	x.hides("– changes/s")
	x.until("changes", func(screen string) bool { return !strings.Contains(screen, "0.0 changes/s") })
	x.keys("g")
	x.shows("● live", "› election   scheduler", "2 waited for")
	draw("top.svg", x)

	x.resize(120, 40)
	x.shows("import/customers/209", "shard-7", "quit", "● live")
	draw("top-wide.svg", x)

	x.resize(80, 24)
	x.keys("/nightly-report" + enter + enter)
	x.shows("HISTORY", "forced")
	x.keys("f")
	x.shows("Reason:")
	x.keys("batch-1 was shut down")
	x.shows("batch-1 was shut down")
	draw("top-lock.svg", x)
}

// aDay fills a table as that of a company on an ordinary night.
func aDay(t *testing.T, db *sql.DB, x *terminal) {
	t.Helper()

	lock := func(owner, id string, ttl time.Duration) *process {
		p := newProcess(t, db, owner)
		if _, err := p.Lock(t.Context(), id, ttl); err != nil {
			t.Fatal(err)
		}

		return p
	}

	// The tenures before, for the history.
	for _, owner := range []string{"batch-2:198", "batch-1:204"} {
		p := newProcess(t, db, owner)

		if err := p.hold("nightly-report").Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	p := newProcess(t, db, "batch-2:201")
	hung := p.hold("nightly-report")

	if err := p.ForceRelease(t.Context(), "nightly-report", hung.Token(), "it hung"); err != nil {
		t.Fatal(err)
	}

	lock("batch-1:211", "nightly-report", 30*time.Second)
	lock("batch-1:211", "backup-eu", 2*time.Minute)
	lock("batch-2:215", "import/orders/42", 30*time.Second)
	lock("batch-2:216", "import/orders/57", 30*time.Second)
	lock("web-3:4121", "invoice/2026-11", 15*time.Second)
	lock("web-1:4090", "reindex-search", time.Minute)
	lock("mail-1:77", "mail-digest", time.Minute)

	for i := range 9 {
		lock(fmt.Sprintf("import-%d:30", i%3+1), fmt.Sprintf("import/customers/%d", 201+i), 30*time.Second)
	}

	newProcess(t, db, "batch-3:20").wait("nightly-report")

	ops1, ops2 := newProcess(t, db, "ops-1:881"), newProcess(t, db, "ops-2:904")
	ops1.lead("scheduler")
	ops2.lead("outbox")
	resign := ops2.lead("shard-7")
	x.row("shard-7", "ops-2:904")
	resign()

	api := newProcess(t, db, "api-1:3300")
	api.permit("slow-service", 4, 2)
	newProcess(t, db, "api-2:3312").permit("slow-service", 4, 1)
	api.permit("licence-seats", 7, 5)
	seats := api.permit("licence-seats", 7, 2)
	api.permit("gpu", 2, 2)

	if err := seats.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}

	for i := range 4 {
		newProcess(t, db, fmt.Sprintf("web-%d:4100", i)).read("config")
	}

	newProcess(t, db, "deploy:12").write("config")
	newProcess(t, db, "migrate:1").write("schema")

	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}

	for id, ago := range map[string]string{
		"nightly-report": "3:12:40", "backup-eu": "00:41:13", "import/orders/42": "00:02:51", "import/orders/57": "00:00:22",
		"invoice/2026-11": "00:00:09", "reindex-search": "01:06:02", "mail-digest": "00:00:41",
		"import/customers/201": "00:00:48", "import/customers/202": "00:00:37", "import/customers/203": "00:00:33",
		"import/customers/204": "00:00:16", "import/customers/205": "00:00:13", "import/customers/206": "00:00:06",
		"pglocker:election:scheduler": "52:10:00", "pglocker:election:outbox": "05:31:00",
		"pglocker:semaphore:slow-service:1": "00:00:18", "pglocker:semaphore:licence-seats:1": "07:02:00",
		"pglocker:semaphore:gpu:1": "00:28:30", "pglocker:rwlock:config:2": "00:01:07", "pglocker:rwlock:schema:w": "00:00:03",
	} {
		if _, err := tx.ExecContext(t.Context(),
			"UPDATE pglocker.lock_statuses SET acquired_at = acquired_at - $2::interval WHERE lock_id = $1", id, ago); err != nil {
			t.Fatal(err)
		}
	}

	// The last grant of the report was then, and the tenures before were in the hours before.
	if _, err := tx.ExecContext(t.Context(), `UPDATE pglocker.lock_history AS h
		SET at = at - interval '3:12:40' - (SELECT max(n.id) - h.id FROM pglocker.lock_history AS n WHERE n.lock_id = h.lock_id) * interval '17:23'
		WHERE lock_id = 'nightly-report'`); err != nil {
		t.Fatal(err)
	}

	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}

	// A lock that is taken and released again and again.
	busy, ctx := newProcess(t, db, "web-2:4102"), t.Context()
	tick := time.NewTicker(30 * time.Millisecond)
	ended := make(chan struct{})

	go func() {
		defer close(ended)

		for {
			select {
			case <-tick.C:
				_ = busy.Do(ctx, "rate-limit", ttl, renew, func(context.Context) error { return nil }, pglocker.WithWait(time.Second))
			case <-ctx.Done():
				return
			}
		}
	}()

	t.Cleanup(func() { tick.Stop(); <-ended })
}

// The colours of the picture: those of the terminal's palette, its background and its foreground.
var (
	palette = [16]string{
		"#3b4252", "#f07178", "#a3be8c", "#ebcb8b", "#82aaff", "#c792ea", "#7fd1e0", "#d8dee9",
		"#4c566a", "#f07178", "#a3be8c", "#ebcb8b", "#82aaff", "#c792ea", "#7fd1e0", "#eceff4",
	}
	background, foreground = "#161b22", "#d8dee9"
)

const (
	cellWidth, cellHeight = 9, 20
	margin                = 16
)

// svg draws a screen. Each run of cells of one style has its width set, so the columns are straight in any font.
func svg(x *terminal) string {
	width, height := x.screen.Width(), x.screen.Height()

	var b strings.Builder

	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d"`+
		` font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace" font-size="15">`+"\n",
		width*cellWidth+2*margin, height*cellHeight+2*margin)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="%s"/>`+"\n", background)

	for y := range height {
		for col := 0; col < width; {
			first := x.screen.CellAt(col, y)
			text, n := "", 0

			for ; col+n < width; n++ {
				c := x.screen.CellAt(col+n, y)
				if !c.Style.Equal(&first.Style) {
					break
				}

				if c.Content == "" {
					text += " "
				}

				text += c.Content
			}

			svgRun(&b, first.Style, text, col, y, n)
			col += n
		}
	}

	return b.String() + "</svg>\n"
}

// svgRun draws n cells of one style.
func svgRun(b *strings.Builder, style uv.Style, text string, col, y, n int) {
	fg, bg := colour(style.Fg, foreground), colour(style.Bg, background)
	if style.Attrs&uv.AttrReverse != 0 {
		fg, bg = bg, fg
	}

	left, above := margin+col*cellWidth, margin+y*cellHeight

	if bg != background {
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", left, above, n*cellWidth, cellHeight, bg)
	}

	trimmed := strings.TrimLeft(text, " ")
	left += (len(text) - len(trimmed)) * cellWidth
	n -= len(text) - len(trimmed)
	right := strings.TrimRight(trimmed, " ")
	n -= len(trimmed) - len(right)

	if right == "" {
		return
	}

	more := ""
	if style.Attrs&uv.AttrBold != 0 {
		more += ` font-weight="bold"`
	}

	if style.Attrs&uv.AttrFaint != 0 {
		more += ` opacity="0.6"`
	}

	fmt.Fprintf(b, `<text x="%d" y="%d" textLength="%d" fill="%s" xml:space="preserve"%s>%s</text>`+"\n",
		left, above+15, n*cellWidth, fg, more, html.EscapeString(right))
}

func colour(c color.Color, otherwise string) string {
	switch c := c.(type) {
	case nil:
		return otherwise
	case ansi.BasicColor:
		return palette[c]
	}

	r, g, b, _ := c.RGBA()

	return fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
}
