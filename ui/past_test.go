package ui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// TestTenures: what events and the row show of who held a lock.
func TestTenures(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	ax := axis{now.Add(-time.Hour), now}
	at := func(minute int) time.Time { return ax.Since.Add(time.Duration(minute) * time.Minute) }
	event := func(kind pglocker.EventKind, token int64, minute int) pglocker.Event {
		return pglocker.Event{Kind: kind, Token: token, PreviousToken: token, Owner: fmt.Sprint("o", token), At: at(minute), ExpiresAt: at(minute)}
	}
	held := func(token int64, since, until int) pglocker.LockStatus {
		return pglocker.LockStatus{LockID: "a", Generation: token, Owner: fmt.Sprint("o", token), AcquiredAt: at(since), ExpiresAt: at(until)}
	}

	kept := event(pglocker.EventReleased, 2, 20)
	kept.ExpiresAt = at(30)

	for name, test := range map[string]struct {
		events []pglocker.Event
		status pglocker.LockStatus
		want   string // token: from-until end
	}{
		"a grant and its release":      {[]pglocker.Event{event("granted", 2, 10), event("released", 2, 20)}, pglocker.LockStatus{Generation: 3}, "2:10-20 released"},
		"a minimum hold":               {[]pglocker.Event{event("granted", 2, 10), kept}, pglocker.LockStatus{Generation: 3}, "2:10-20 released kept 30"},
		"a tenure from before":         {[]pglocker.Event{event("released", 2, 20)}, pglocker.LockStatus{Generation: 3}, "2:?-20 released"},
		"a crash":                      {[]pglocker.Event{event("granted", 2, 10), event("expired", 2, 20), event("granted", 3, 30)}, held(3, 30, 70), "2:10-20 expired, 3:30-60 "},
		"a late release":               {[]pglocker.Event{event("granted", 2, 10), event("expired", 2, 20), event("released", 2, 25)}, pglocker.LockStatus{Generation: 3}, "2:10-20 expired late"},
		"a refresh":                    {[]pglocker.Event{event("granted", 2, 10), event("refreshed", 3, 20), event("forced", 3, 30)}, pglocker.LockStatus{Generation: 4}, "2:10-20 refreshed, 3:20-30 forced"},
		"a crash that isn't written":   {[]pglocker.Event{event("granted", 2, 10)}, held(2, 10, 40), "2:10-40 expired"},
		"held for longer":              {nil, held(2, -90, 70), "2:-90-60 "},
		"crashed before":               {nil, held(2, -90, -50), ""},
		"deleted while free":           {[]pglocker.Event{{Kind: "deleted", Token: 7, PreviousToken: 7, At: at(10)}}, pglocker.LockStatus{}, ""},
		"the row is older than events": {[]pglocker.Event{event("granted", 2, 10), event("released", 2, 20), event("granted", 4, 30)}, held(2, 10, 70), "2:10-20 released, 4:30-60 "},
	} {
		p := &pastOf{status: test.status, found: test.status.Generation > 0, events: test.events}

		var got []string

		for _, n := range p.tenures(now, ax) {
			from := fmt.Sprint(int(n.Since.Sub(ax.Since).Minutes()))
			if n.Earlier {
				from = "?"
			}

			text := fmt.Sprintf("%d:%s-%d %s", n.Token, from, int(n.Until.Sub(ax.Since).Minutes()), n.End)
			if n.Late {
				text += " late"
			}

			if !n.Kept.IsZero() {
				text += fmt.Sprint(" kept ", int(n.Kept.Sub(ax.Since).Minutes()))
			}

			got = append(got, text)
		}

		if text := strings.Join(got, ", "); text != test.want {
			t.Errorf("%s: %s, want %s", name, text, test.want)
		}
	}
}

// TestBars: bars stay within the picture, and thousands of short tenures become few.
func TestBars(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ax := newAxis(now, time.Hour)

	var tenures []tenure

	for n := range 4000 {
		since := now.Add(-time.Hour + time.Duration(n)*900*time.Millisecond)
		tenures = append(tenures, tenure{Token: int64(n), Since: since, Until: since.Add(10 * time.Millisecond), End: pglocker.EventReleased})
	}

	tenures = append(tenures, tenure{Token: 4001, Since: now, Until: now})

	bars := ax.bars(tenures)
	if len(bars) > 10 {
		t.Errorf("%d bars", len(bars))
	}

	for _, b := range bars {
		if b.x < 0 || b.x+b.w > 100.001 {
			t.Errorf("a bar from %f, %f wide", b.x, b.w)
		}
	}

	if last := bars[len(bars)-1]; last.Class != "running" {
		t.Errorf("the last bar is %q", last.Class)
	}

	for _, span := range append([]time.Duration{time.Second, 10 * time.Second, 40 * time.Second, 7 * time.Minute}, spans...) {
		if n := len(newAxis(now, span).ticks()); n < 2 || n > 7 {
			t.Errorf("%d ticks in %s", n, span)
		}
	}
}

// TestContention: what counts as taken at once, and for how long a lock was held.
func TestContention(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ax := axis{now.Add(-contentionSpan), now}
	page := &contentionPage{recipes: map[string]*contended{}}
	at := func(d time.Duration) time.Time { return ax.Since.Add(d) }

	page.of("a").add([]tenure{
		{Since: at(-time.Hour), Until: at(6 * time.Minute), End: pglocker.EventReleased},
		{Since: at(6*time.Minute + 50*time.Millisecond), Until: at(12 * time.Minute), End: pglocker.EventExpired},
		{Since: at(12 * time.Minute), Until: at(18 * time.Minute), End: pglocker.EventForced},
		{Since: at(54 * time.Minute), Until: now},
	}, ax)

	a := page.Locks[0]
	if a.Grants != 3 || a.Waits != 1 || a.Crashes != 1 || a.Forced != 1 || a.Share() != "39%" || a.Longest.Round(time.Second) != 6*time.Minute {
		t.Errorf("%+v, %s", *a, a.Share())
	}

	var sum time.Duration
	for _, part := range a.spark {
		sum += part
	}

	if sum != a.busy || a.spark[0] != time.Minute || a.spark[30] != 0 || a.spark[59] != time.Minute {
		t.Errorf("the picture shows %s of %s: %v", sum, a.busy, a.spark)
	}

	// The slots of a semaphore are one.
	for _, id := range []string{"pglocker:semaphore:s:1", "pglocker:semaphore:s:2"} {
		page.of(id).add([]tenure{{Since: at(0), Until: at(15 * time.Minute * time.Duration(id[len(id)-1]-'0')), End: pglocker.EventReleased}}, ax)
	}

	if s := page.Locks[1]; len(page.Locks) != 2 || s.Rows != 2 || s.Share() != "37%" || s.Name != "s" {
		t.Errorf("%d, %+v %s", len(page.Locks), *s, s.Share())
	}

	for n := range 5000 {
		page.of(fmt.Sprint("b", n)).add([]tenure{{Since: at(0), Until: at(time.Millisecond), End: pglocker.EventReleased}}, ax)
	}

	page.finish()

	if len(page.Locks) != contendedShown || page.Locks[0].Name != "a" || page.Locks[1].Name != "s" {
		t.Errorf("%d are kept, first %s and %s", len(page.Locks), page.Locks[0].Name, page.Locks[1].Name)
	}
}
