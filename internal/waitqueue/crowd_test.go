package waitqueue

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnnouncementPayload(t *testing.T) {
	t.Parallel()

	want := Announcement{
		LockID: " a b\n🔒 ", Generation: 1 << 40, Winner: "abc", Lease: time.Minute, Mark: 5 * time.Second,
		waited: time.Hour, spacing: time.Millisecond, others: 31,
	}

	if got, ok := ParseAnnouncement(want.Payload()); !ok || got != want {
		t.Errorf("%+v, %t, want %+v", got, ok, want)
	}

	for _, payload := range []string{
		"", "a", "pglocker:granted ", "pglocker:granted 1 2 3 4 5 6 name", "pglocker:granted 1 2 -3 4 5 6 name a",
		"pglocker:granted 1 2 x 4 5 6 name a", "pglocker:semaphore:a:gate",
	} {
		if got, ok := ParseAnnouncement(payload); ok {
			t.Errorf("%q: %+v", payload, got)
		}
	}
}

// announced is the announcement of one of a crowd that has waited that long.
func announced(winner string, waited time.Duration) Announcement {
	return Announcement{LockID: "a", Generation: 2, Winner: winner, Lease: time.Minute, Mark: 9 * time.Second, waited: waited, spacing: time.Second, others: 20}
}

// wantStart takes the start of the head, and fails unless it is of that rank.
func wantStart(t *testing.T, what string, w *Waiter, rank int) {
	t.Helper()

	at := func() time.Time { _, at := w.Told(); return at }()
	least := time.Duration(rank) * crowdPoliteness

	if d := time.Until(at); at.IsZero() || d < least || d > least*3/2 {
		t.Errorf("%s: starts after %s (none: %t), want %s or half as much again", what, d, at.IsZero(), least)
	}
}

// TestCrowd: of many processes the one that came next after the last winner asks at once, and each other a while
// later for each that is in front of it, unless a grant is announced.
func TestCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		w := q.Join("a", time.Minute)
		<-w.Woken()

		// The winner came ten seconds before.
		time.Sleep(20 * time.Second)
		q.Released("a")
		<-w.Woken() // nothing is known of a crowd

		q.Announced(announced("x", 30*time.Second))

		grant, startAt := w.Told()
		if grant == nil || grant.Winner != "x" || !startAt.IsZero() {
			t.Fatalf("told %+v, starts at %s", grant, startAt)
		}

		time.Sleep(time.Second)
		q.Released("a")
		wantStart(t, "ten came in between", w, 9)

		// One after the other wins.
		for rank := 8; rank >= 0; rank-- {
			q.Announced(announced(fmt.Sprint("x", rank), time.Since(w.queue.lines["a"].turns.crowd.since)+time.Duration(rank+1)*time.Second))
			time.Sleep(time.Second)
			q.Released("a")
			wantStart(t, fmt.Sprint("rank ", rank), w, rank)
		}

		// Others that came before are in front, and it is told in time that it needn't ask.
		q.Announced(announced("y", time.Minute))
		q.Released("a")
		q.Announced(announced("z", time.Minute))

		if grant, startAt := w.Told(); grant == nil || grant.Winner != "z" || !startAt.IsZero() {
			t.Errorf("told %+v, starts at %s", grant, startAt)
		}

		// It wins, and all are told.
		if a, announce := q.Won("a"); announce {
			t.Errorf("announces between fast releases: %+v", a)
		}

		q.Announced(announced("x", time.Minute))
		time.Sleep(time.Second)
		q.Released("a")

		if a, announce := q.Won("a"); !announce || a.waited != time.Second || a.others < crowdFrom {
			t.Errorf("announces %t: %+v", announce, a)
		}

		if !q.lines["a"].turns.isCrowd() {
			t.Error("no crowd after it won once")
		}

		if q.Won("a"); q.lines["a"].turns.isCrowd() {
			t.Error("a crowd in which no other wins")
		}

		q.Announced(announced("x", time.Minute))
		q.Released("a")

		// Without announcements, it is no crowd any more.
		for range announcedFor {
			if !q.lines["a"].turns.isCrowd() {
				t.Error("no crowd too soon")
			}

			q.Released("a")
		}

		if q.lines["a"].turns.isCrowd() {
			t.Error("a crowd for ever")
		}
	})
}

// TestOvertaken: a process that overtook all others doesn't make all of them think that it is their turn.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		w := q.Join("a", time.Minute)

		q.Announced(announced("x", 20*time.Second))
		q.Announced(announced("y", 0))
		w.Told()
		q.Released("a")
		wantStart(t, "overtaken", w, 8)
	})
}

// TestBackToCrowd: a process that comes back to a crowd knows it, and gives a start. It forgets one that it left
// long ago, and doesn't remember all that there ever were.
func TestBackToCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		w := q.Join("a", time.Minute)

		q.Announced(announced("x", time.Minute))

		if q.InCrowd("a") {
			t.Error("it left a crowd in which it waits")
		}

		w.Leave()
		time.Sleep(crowdFor - 1)

		if !q.InCrowd("a") {
			t.Error("the crowd is forgotten too soon")
		}

		w = q.Join("a", time.Minute)
		wantStart(t, "back", w, 1)

		if len(w.Woken()) > 0 {
			t.Error("it asks at once")
		}

		w.Leave()
		time.Sleep(crowdFor)

		if q.InCrowd("a") {
			t.Error("the crowd is not forgotten")
		}

		w = q.Join("a", time.Minute)
		<-w.Woken()
		w.Leave()

		for i := range 10 * maxCrowds {
			id := fmt.Sprint(i)
			w := q.Join(id, time.Minute)
			a := announced("x", time.Minute)
			a.LockID = id
			q.Announced(a)
			w.Leave()
		}

		if len(q.crowds) > maxCrowds {
			t.Errorf("%d crowds are remembered", len(q.crowds))
		}
	})
}

// TestMarkOfCrowd: in a crowd no mark is due while a fresh one stands, and the foremost renew one that isn't.
func TestMarkOfCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		w := q.Join("a", time.Minute)

		q.Announced(announced("x", 20*time.Second))

		if q.MarkDue("a", time.Now(), true) {
			t.Error("a mark is due though one is fresh")
		}

		time.Sleep(4*time.Second + 1)

		if !q.MarkDue("a", time.Now(), true) {
			t.Error("no mark is due though the last is old")
		}

		q.Announced(announced("x", 20*time.Second))
		q.WakeAll()

		if !q.MarkDue("a", time.Now(), true) {
			t.Error("no mark is due though the last may be lost")
		}

		old := func(waited time.Duration) (told bool) {
			a := announced("x", waited)
			a.Mark = time.Second

			q.Released("a")
			q.Announced(a)

			grant, _ := w.Told()

			return grant != nil
		}

		if !old(time.Minute) {
			t.Error("one far behind isn't told of a grant with an old mark")
		}

		for range 10 {
			old(4 * time.Second)
		}

		if old(4 * time.Second) {
			t.Error("one of the foremost doesn't renew an old mark")
		}
	})
}
