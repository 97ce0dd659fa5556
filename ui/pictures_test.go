package ui_test

import (
	"bytes"
	"cmp"
	"database/sql"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/ismurov/pglocker/ui"
)

var update = flag.Bool("update", false, "make the pictures of docs/img anew")

// TestPictures makes the pictures of docs/ui.md, of a table like that of a busy shop. The fonts Inter and JetBrains
// Mono should be installed.
func TestPictures(t *testing.T) {
	if !*update {
		t.Skip("makes pictures, with -update only")
	}

	db := newDB(t)
	shop := fillShop(t, db, time.Now())

	server := newServer(t, newHandler(t, newLocker(t, db, "page"), ui.Options{AllowRelease: true, Title: "shop, production"}))
	b := newBrowser(t)

	pictures := []struct {
		name, address string
		width         int64
		dark          bool
	}{
		{"overview-light", "", 1280, false},
		{"overview-dark", "", 1280, true},
		{"overview-360-light", "", 360, false},
		{"overview-360-dark", "", 360, true},
		{"lock-light", "lock?id=nightly-import", 1280, false},
		{"lock-dark", "lock?id=nightly-import", 1280, true},
		{"lock-360-light", "lock?id=nightly-import", 360, false},
		{"lock-360-dark", "lock?id=nightly-import", 360, true},
		{"contention-light", "contention", 1280, false},
		{"contention-360-dark", "contention", 360, true},
		{"semaphore-dark", "group?kind=semaphore&name=payments-api", 1280, true},
		{"elections-light", "elections", 1280, false},
	}

	for _, p := range pictures {
		scheme := "light"
		if p.dark {
			scheme = "dark"
		}

		height := int64(800)
		if p.width < 700 {
			height = 1200 // of a long page, its beginning
		}

		call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: p.width, Height: height, DeviceScaleFactor: 1, Mobile: p.width < 700,
		})
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}})
		shop.renew()
		b.open(server, p.address)

		if wide := eval[int64](b, "document.documentElement.scrollWidth"); wide > p.width {
			t.Errorf("%s is %d pixels wide", p.name, wide)
		}

		shot := chromedp.FullScreenshot(100)
		if p.width < 700 {
			shot = chromedp.CaptureScreenshot()
		}

		picture, err := chromedp.Run(b.ctx, shot)
		must(t, err)
		save(t, filepath.Join("..", "docs", "img", "ui-"+p.name+".png"), picture)
	}
}

// save writes a picture with 256 colours, which makes it small. A page has few.
func save(t *testing.T, name string, picture []byte) {
	t.Helper()

	from, err := png.Decode(bytes.NewReader(picture))
	must(t, err)

	counts := map[color.RGBA]int{}
	bounds := from.Bounds()

	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			counts[color.RGBAModel.Convert(from.At(x, y)).(color.RGBA)]++
		}
	}

	// Colours that are frequent, or unlike those that are there already.
	all := make([]color.RGBA, 0, len(counts))
	for c := range counts {
		all = append(all, c)
	}

	slices.SortFunc(all, func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(uint32(a.R)<<16|uint32(a.G)<<8|uint32(a.B), uint32(b.R)<<16|uint32(b.G)<<8|uint32(b.B)))
	})

	var palette color.Palette

	far := make([]float64, len(all))
	for i := range far {
		far[i] = math.Inf(1)
	}

	for next := 0; len(palette) < min(len(all), 256); {
		palette = append(palette, all[next])

		best := -1.

		for i, c := range all {
			r, g, b := float64(c.R)-float64(all[next].R), float64(c.G)-float64(all[next].G), float64(c.B)-float64(all[next].B)
			far[i] = min(far[i], r*r+g*g+b*b)
		}

		for i, c := range all {
			if worth := far[i] * math.Sqrt(float64(counts[c])); worth > best {
				best, next = worth, i
			}
		}
	}

	to := image.NewPaletted(bounds, palette)
	draw.Draw(to, bounds, from, bounds.Min, draw.Src)

	var b bytes.Buffer

	must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, to))
	must(t, os.WriteFile(name, b.Bytes(), 0o644))
	t.Logf("%s: %d KB", name, b.Len()>>10)
}

// shop fills a table as the jobs of a shop would.
type shop struct {
	t      *testing.T
	db     *sql.DB
	now    time.Time
	random *rand.Rand
	token  int64
	leases []lease
}

// lease is what is left of a lease when a picture is taken.
type lease struct {
	id   string
	left time.Duration
}

// renew sets each lease anew.
func (s *shop) renew() {
	for _, l := range s.leases {
		exec(s.t, s.db, "UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp() + $2::bigint * interval '1 us' WHERE lock_id = $1",
			l.id, l.left.Microseconds())
	}
}

func (s *shop) owner(name string) string {
	return fmt.Sprintf("%s#%07x.%x", name, len(name)*7919*len(name)+int(name[len(name)-1])*65537, s.random.IntN(4000))
}

// row makes a row. A holder of "" has released it.
func (s *shop) row(id, holder string, since, left time.Duration, waits bool) {
	var (
		owner, acquired, marked any
		token                   = s.token
	)

	if holder != "" {
		owner, acquired = holder, s.now.Add(-since)
	}

	if waits {
		marked = s.now.Add(time.Hour)
	}

	if left > 0 {
		s.leases = append(s.leases, lease{id, left})
	}

	exec(s.t, s.db, `INSERT INTO pglocker.lock_statuses (lock_id, generation, expires_at, owner, acquired_at, contended_until)
		VALUES ($1, $2, $3, $4, $5, $6)`, id, token, s.now.Add(left), owner, acquired, marked)
}

// event writes an event of the history.
func (s *shop) event(id, kind, owner string, at time.Time, reason any) {
	exec(s.t, s.db, `INSERT INTO pglocker.lock_history (at, lock_id, kind, token, previous_token, owner, expires_at, reason)
		VALUES ($1::timestamptz, $2, $3, $4, $4, $5, CASE WHEN $2::text = 'granted' THEN $1::timestamptz + interval '30 s' ELSE $1 END, $6)`, at, id, kind, s.token, owner, reason)
}

// past writes tenures of an hour, one after the other, up to the time until. Of the tenures, crash ended without a
// release, and force by force.
func (s *shop) past(id string, owners []string, until, each, gap time.Duration, crash, force int) {
	at := s.now.Add(-62 * time.Minute)

	for n := 1; ; n++ {
		length := time.Duration(float64(each) * (.5 + s.random.Float64()))
		if at.Add(length).After(s.now.Add(-until)) {
			break
		}

		owner := s.owner(owners[s.random.IntN(len(owners))])
		s.token += 2
		s.event(id, "granted", owner, at, nil)

		at = at.Add(length)
		kind, reason := "released", any(nil)

		switch n {
		case crash:
			kind = "expired"
		case force:
			kind, reason = "forced", "stuck since the deploy, INC-2291 (by alice)"
		}

		s.event(id, kind, owner, at, reason)

		at = at.Add(time.Duration(float64(gap) * (.6 + .8*s.random.Float64())))
		if kind == "expired" {
			at = at.Add(20 * time.Second)
		}
	}

	s.token += 2
}

func fillShop(t *testing.T, db *sql.DB, now time.Time) *shop {
	t.Helper()

	s := &shop{t: t, db: db, now: now, random: rand.New(rand.NewPCG(7, 7)), token: 40}
	exec(t, db, "ALTER TABLE pglocker.lock_statuses DISABLE TRIGGER USER") // the history is written here

	workers := []string{"worker-1", "worker-2", "worker-3", "worker-4"}

	// A job that is wanted all the time, with a crash and a release by force.
	s.past("nightly-import", workers, 4*time.Minute+10*time.Second, 3*time.Minute, 40*time.Second, 5, 9)
	holder := s.owner("worker-3")
	s.event("nightly-import", "granted", holder, now.Add(-4*time.Minute-2*time.Second), nil)
	s.row("nightly-import", holder, 4*time.Minute+2*time.Second, 24*time.Second, true)

	held := func(id, by string, since, left time.Duration, waits bool, each, gap time.Duration, crash int) {
		s.past(id, workers, since+time.Second, each, gap, crash, 0)
		holder := s.owner(by)
		s.event(id, "granted", holder, now.Add(-since), nil)
		s.row(id, holder, since, left, waits)
	}
	held("billing:invoices:2026-11", "worker-1", 38*time.Second, 22*time.Second, true, 35*time.Second, 20*time.Millisecond, 0)
	held("reindex:products", "worker-4", 26*time.Minute+11*time.Second, 41*time.Second, false, 9*time.Minute, 3*time.Minute, 0)
	held("stock:reserve:warehouse-7", "checkout-2", 2*time.Second, 8*time.Second, true, 4*time.Second, 15*time.Millisecond, 31)
	held("thumbnails:batch-1183", "worker-2", 7*time.Minute+45*time.Second, 17*time.Second, false, 6*time.Minute, 30*time.Second, 0)
	held("mail:digest:weekly", "worker-2", 51*time.Second, 9*time.Second, false, 50*time.Second, 2*time.Minute, 0)
	held("sync:crm", "worker-1", 3*time.Minute+20*time.Second, 52*time.Second, false, 4*time.Minute, 4*time.Minute, 3)
	s.past("export:ledger", workers, 12*time.Minute, 5*time.Minute, 6*time.Minute, 0, 0)
	s.row("export:ledger", s.owner("worker-4"), 17*time.Minute, -11*time.Minute, false)

	for _, id := range []string{"archive:orders", "cleanup:sessions", "report:sales:daily", "warmup:cache:eu"} {
		s.token += 3
		s.row(id, "", 0, -20*time.Minute, false)
	}

	election := func(name, leader string, since, left time.Duration, before ...string) {
		id := "pglocker:election:" + name

		for n, name := range before {
			s.token += 2
			token := s.token
			s.row(fmt.Sprintf("pglocker:term:%s:%d", id[len("pglocker:election:"):], token%32), s.owner(name),
				since+time.Duration(len(before)-n)*47*time.Minute, -time.Hour, false)
		}

		s.token += 2
		s.row(id, leader, since, left, leader != "")
	}
	election("scheduler", s.owner("api-2"), 2*time.Hour+14*time.Minute, 11*time.Second, "api-1", "api-3", "api-2", "api-1", "api-3")
	election("outbox-relay", s.owner("api-1"), 9*time.Minute+3*time.Second, 13*time.Second, "api-3", "api-2")
	election("compactor", "", 0, -40*time.Second, "batch-1", "batch-2", "batch-1")

	slots := func(kind, name string, held []int, most int, waits bool) {
		prefix := "pglocker:" + kind + ":" + name + ":"
		s.token += 2
		s.row(prefix+"gate", "", 0, -time.Hour, waits)

		for n := 1; n <= most; n++ {
			s.past(fmt.Sprint(prefix, n), workers, 70*time.Second, time.Duration(40+30*n)*time.Second, time.Duration(n*n)*time.Second, 0, 0)

			if !slices.Contains(held, n) {
				s.row(fmt.Sprint(prefix, n), "", 0, -time.Minute, false)

				continue
			}

			holder, since := s.owner(fmt.Sprint("checkout-", 1+n%3)), time.Duration(10+5*n)*time.Second
			s.event(fmt.Sprint(prefix, n), "granted", holder, now.Add(-since), nil)
			s.row(fmt.Sprint(prefix, n), holder, since, 30*time.Second, false)
		}
	}
	slots("semaphore", "payments-api", []int{1, 2, 3, 4, 5, 6, 7, 8}, 8, true)
	slots("semaphore", "image-resizer", []int{1, 2, 5}, 6, false)
	slots("semaphore", "pdf-renderer", []int{1}, 4, false)
	slots("rwlock", "price-list", []int{1, 2, 3, 5}, 5, false)
	slots("rwlock", "search-schema", nil, 3, false)

	s.token += 2
	s.row("pglocker:rwlock:search-schema:w", s.owner("migrator"), 14*time.Second, 20*time.Second, false)
	s.token += 2
	s.row("pglocker:rwlock:price-list:intent", s.owner("worker-1"), time.Second, 9*time.Second, false)

	s.renew()

	return s
}
