package waitqueue_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

// has reports whether the channel holds something, and takes it.
func has[T any](from <-chan T) bool {
	select {
	case <-from:
		return true
	default:
		return false
	}
}

// expect fails the test unless exactly the named signals of a waiter are there.
func expect(t *testing.T, what string, w *waitqueue.Waiter, woken, granted bool) {
	t.Helper()

	for _, signal := range []struct {
		name      string
		got, want bool
	}{
		{"woken", has(w.Woken()), woken},
		{"granted", has(w.Granted()), granted},
	} {
		if signal.got != signal.want {
			t.Errorf("%s: %s is %t, want %t", what, signal.name, signal.got, signal.want)
		}
	}
}

// isHead fails the test unless w is next for the lock.
func isHead(t *testing.T, what string, q *waitqueue.Queue, id string, w *waitqueue.Waiter) {
	t.Helper()

	if head, _ := q.Head(id); head != w || !w.IsHead() {
		t.Errorf("%s: another is the head", what)
	}
}

func grant(generation int64) store.Result {
	return store.Result{Verdict: store.Granted, Row: store.Row{Generation: generation}}
}

// TestOnlyTheHeadIsWoken: the first to come looks at once, who comes later waits
// its turn, and what wakes a line wakes its head alone.
func TestOnlyTheHeadIsWoken(t *testing.T) {
	t.Parallel()

	q := waitqueue.New()
	first := q.Join("a", time.Second)
	second := q.Join("a", time.Second)
	other := q.Join("b", time.Second)

	expect(t, "the first of a line", first, true, false)
	expect(t, "the second", second, false, false)
	expect(t, "the first of another line", other, true, false)

	for range 3 {
		q.Wake("a")
	}

	expect(t, "the head, however often it was woken", first, true, false)
	expect(t, "the head, once it has taken that", first, false, false)
	expect(t, "the second", second, false, false)
	expect(t, "the head of another line", other, false, false)

	q.WakeAll()
	expect(t, "the head after WakeAll", first, true, false)
	expect(t, "the second after WakeAll", second, false, false)
	expect(t, "the other head after WakeAll", other, true, false)

	q.Wake("nobody waits for this")
}

// TestDeliveredInOrder: grants go to those who wait in the order in which they
// came. The next one becomes the head and isn't woken: the lock is held here.
func TestDeliveredInOrder(t *testing.T) {
	t.Parallel()

	const n = 20

	q := waitqueue.New()
	waiters := make([]*waitqueue.Waiter, n)

	for i := range waiters {
		waiters[i] = q.Join("a", time.Duration(i))
	}

	has(waiters[0].Woken())

	for i, w := range waiters {
		head, run := q.Head("a")
		if head != w || head.TTL != time.Duration(i) || run.Length != i {
			t.Fatalf("at turn %d the head has the TTL %d, after a run of %d", i, head.TTL, run.Length)
		}

		if !q.Deliver(head, grant(int64(i))) {
			t.Fatalf("turn %d was not delivered", i)
		}

		if got := <-w.Granted(); got.Row.Generation != int64(i) {
			t.Errorf("turn %d got the grant %d", i, got.Row.Generation)
		}

		if i+1 < n {
			expect(t, "the next", waiters[i+1], false, false)
			isHead(t, "after a delivery to the one before", q, "a", waiters[i+1])
		}

		if w.IsHead() {
			t.Errorf("turn %d is still the head", i)
		}

		if q.Deliver(w, grant(99)) {
			t.Errorf("turn %d was delivered twice", i)
		}
	}

	if head, run := q.Head("a"); head != nil || run.Length != 0 {
		t.Error("somebody waits in an empty line")
	}
}

// TestHeadLeaves: the next looks, since the leaver may have taken a wake-up with
// it. Nobody is bothered when another than the head leaves.
func TestHeadLeaves(t *testing.T) {
	t.Parallel()

	q := waitqueue.New()
	first, second, third, fourth := q.Join("a", 1), q.Join("a", 1), q.Join("a", 1), q.Join("a", 1)
	has(first.Woken())

	if _, ok := second.Leave(); ok {
		t.Error("who was granted nothing left with a grant")
	}

	expect(t, "the head, when the second left", first, false, false)
	expect(t, "the third, when the second left", third, false, false)
	isHead(t, "when the second left", q, "a", first)

	for range 2 { // leaving again changes nothing
		if _, ok := first.Leave(); ok {
			t.Error("who was granted nothing left with a grant")
		}
	}

	isHead(t, "when the first left", q, "a", third)
	expect(t, "the third, when the first left", third, true, false)
	expect(t, "the fourth, when the first left", fourth, false, false)

	if q.Deliver(first, grant(1)) {
		t.Error("who left was delivered a grant")
	}

	isHead(t, "after a delivery in vain", q, "a", third)
	expect(t, "the third, after a delivery in vain", third, false, false)

	third.Leave()
	fourth.Leave()

	if head, _ := q.Head("a"); head != nil {
		t.Error("somebody waits in an empty line")
	}
}

// TestLeaveWithGrant: a grant that was delivered before is the leaver's to pass on.
func TestLeaveWithGrant(t *testing.T) {
	t.Parallel()

	q := waitqueue.New()
	first, second := q.Join("a", 1), q.Join("a", 1)

	if !q.Deliver(first, grant(7)) {
		t.Fatal("not delivered")
	}

	got, ok := first.Leave()
	if !ok || got.Row.Generation != 7 {
		t.Errorf("left with %+v, %t, want the grant", got, ok)
	}

	if _, again := first.Leave(); again {
		t.Error("the same grant came twice")
	}

	expect(t, "the next", second, false, false)
	isHead(t, "after the first", q, "a", second)
}

// TestDeliverLeaveRace: whoever is first, each grant has one owner: it was
// delivered and is received or found on leaving, or was not delivered.
func TestDeliverLeaveRace(t *testing.T) {
	t.Parallel()

	q := waitqueue.New()

	for i := range 2000 {
		var (
			w         = q.Join("a", 1)
			next      = q.Join("a", 1)
			both      sync.WaitGroup
			delivered bool
			found     bool
		)

		both.Go(func() { delivered = q.Deliver(w, grant(int64(i))) })
		both.Go(func() { _, found = w.Leave() })
		both.Wait()

		if delivered != found {
			t.Fatalf("round %d: delivered %t, found on leaving %t", i, delivered, found)
		}

		expect(t, "the next", next, !delivered, false)
		isHead(t, "after either", q, "a", next)
		next.Leave()
	}
}

// TestRun: deliveries in a row are counted until the database decides.
func TestRun(t *testing.T) {
	t.Parallel()

	q := waitqueue.New()

	run := func() int {
		_, run := q.Head("a")

		return run.Length
	}

	for range 5 {
		q.Join("a", 1)
	}

	for want := range 3 {
		if got := run(); got != want {
			t.Errorf("a run of %d, want %d", got, want)
		}

		head, _ := q.Head("a")
		q.Deliver(head, grant(1))
	}

	head, _ := q.Head("a")
	head.Leave()

	if got := run(); got != 3 {
		t.Errorf("a run of %d when a waiter has left, want 3", got)
	}

	q.EndRun("b")
	q.EndRun("a")

	if got := run(); got != 0 {
		t.Errorf("a run of %d when it has ended, want 0", got)
	}
}

// TestOthers: a mark that this process didn't write tells of another one that
// waits, for as long as a mark counts, by the clock that runs here.
func TestOthers(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		const skew = 42 * time.Hour // between the database's clock and ours

		var (
			q      = waitqueue.New()
			now    = func() time.Time { return time.Now().Add(skew) }
			others = func() bool {
				_, run := q.Head("a")

				return run.Others
			}
		)

		if others() || q.MarkDue("a", time.Now(), true) {
			t.Error("others, or a mark is due, where nobody waits")
		}

		q.FoundMark("a", now().Add(time.Minute), now()) // nobody waits: forgotten
		q.Join("a", 1)

		if others() {
			t.Error("others before a mark was seen")
		}

		if !q.MarkDue("a", time.Now().Add(-time.Hour), false) {
			t.Error("the first mark is not due")
		}

		// signed is the mark of who has this signature.
		signed := func(at time.Time, signature int64) time.Time {
			surplus := (at.UnixMicro() - signature) % store.MarkModulus

			return at.Add(-time.Duration(surplus) * time.Microsecond)
		}

		q.Marked("a", false)

		if q.MarkDue("a", time.Now().Add(-time.Second), false) || !q.MarkDue("a", time.Now().Add(time.Second), false) {
			t.Error("when a mark is due doesn't go by when it was written")
		}

		if !q.MarkDue("a", time.Now().Add(-time.Second), true) {
			t.Error("who listens now is content with a mark that asks for no notification")
		}

		q.Marked("a", true)

		if q.MarkDue("a", time.Now().Add(-time.Second), true) {
			t.Error("a mark is due again at once")
		}

		// It knows its marks without having been told of them, also those of a while ago.
		for range 30 {
			mine := signed(now().Add(10*time.Second), q.Sign("a"))

			q.FoundMark("a", mine, now())
			time.Sleep(8 * time.Second)
			q.FoundMark("a", mine, now())
		}

		q.FoundMark("a", time.Time{}, now())
		q.FoundMark("a", signed(now().Add(-10*time.Second), waitqueue.New().Sign("a")), now())

		if others() {
			t.Error("others by own marks, by none, or by one that passed long ago")
		}

		if q.Sign("a") == q.Sign("b") {
			t.Error("the marks of different locks have the same signature")
		}

		// Who polls marks the present; that counts for ten seconds.
		theirs := now().Add(-time.Second)
		if store.SignatureOf(theirs) == q.Sign("a") {
			theirs = theirs.Add(time.Microsecond)
		}

		q.FoundMark("a", theirs, now())

		if !others() {
			t.Error("no others, though one left a mark")
		}

		time.Sleep(9*time.Second - time.Nanosecond)

		if !others() {
			t.Error("no others, a moment before their mark ends")
		}

		time.Sleep(time.Nanosecond)

		if others() {
			t.Error("others, though their mark has ended")
		}
	})
}

// TestTurns: when all processes are told of a release, the one that has waited for the
// most of them looks at once, and the others a moment later.
func TestTurns(t *testing.T) {
	t.Parallel()

	q := waitqueue.New()
	w := q.Join("a", 1)
	<-w.Woken() // as the new head

	// released is whether this process looks at once.
	released := func() bool {
		q.Released("a")

		select {
		case <-w.Woken():
			return true
		case <-w.Hinted():
			w.AskAt()

			return false
		default:
			t.Fatal("neither woken nor told that it may look")

			return false
		}
	}

	expect := func(what string, want ...bool) {
		t.Helper()

		for i, want := range want {
			if got := released(); got != want {
				t.Fatalf("%s: release %d: looks at once: %t, want %t", what, i+1, got, want)
			}
		}
	}

	q.Released("b") // where nobody waits
	expect("no rivals", true, true)
	q.Won("a")
	expect("no rivals, just won", true)

	q.Lost("a", "x")
	q.Lost("a", "y")
	q.Won("a")
	expect("two rivals, just won", false, false, true, true)

	q.Won("a")
	expect("the first", false)
	q.Lost("a", "x")
	expect("the second", false)
	q.Lost("a", "y")
	expect("the own", true)

	// Rivals that don't win any more have gone.
	for range 40 {
		released()
	}

	q.Won("a")
	expect("rivals of long ago", true)
	q.EndRun("a")
	expect("a run has ended", true)

	// One that is known to wait is a rival, although it has won nothing yet.
	others(q, "a", time.Minute)
	q.EndRun("a")
	expect("a run has ended, and another waits", false, true)
	q.Won("a")
	expect("just won, and another waits", false, true)
}

// others finds the mark of another process, which stands for d.
func others(q *waitqueue.Queue, id string, d time.Duration) {
	mark := time.Now().Add(d)
	if store.SignatureOf(mark) == q.Sign(id) { // as if it were its own
		mark = mark.Add(time.Microsecond)
	}

	q.FoundMark(id, mark, time.Now())
}

// TestPromise: places are promised to those that want one, in the order in which they came, each once. No
// promise goes past a waiter for something else.
func TestPromise(t *testing.T) {
	t.Parallel()

	q := waitqueue.New()

	if w := q.Promise("a"); w != nil {
		t.Error("a place was promised to nobody")
	}

	first, second := q.JoinSlot("a", time.Second, 3, false), q.JoinSlot("a", time.Second, 3, false)
	wide, last := q.JoinSpecial("a"), q.JoinSlot("a", time.Second, 3, false)

	if q.Promise("a") != first || q.Promise("a") != second || q.Promise("a") != nil {
		t.Error("the places weren't promised to the first two alone")
	}

	q.Withdraw(first)

	if q.Promise("a") != first {
		t.Error("a place wasn't promised again")
	}

	// The second is served before the first.
	if !q.Deliver(second, grant(1)) {
		t.Error("a promised place wasn't delivered")
	}

	expect(t, "the second", second, false, true)
	isHead(t, "the second is served", q, "a", first)

	first.Leave()

	if q.Deliver(first, grant(2)) {
		t.Error("a place was delivered to a waiter that had left")
	}

	if q.Promise("a") != nil {
		t.Error("a place was promised past a waiter for several")
	}

	wide.Leave()

	if q.Promise("a") != last {
		t.Error("a place wasn't promised to the last")
	}
}

// TestDeliverTellsOn: a head that is delivered a place takes no wake-up and no hint along. The next one asks when
// it would have.
func TestDeliverTellsOn(t *testing.T) {
	t.Parallel()

	const soon, later = time.Minute, time.Hour

	for what, test := range map[string]struct {
		prepare func(q *waitqueue.Queue, first *waitqueue.Waiter)
		want    time.Duration
	}{
		"a hint": {func(q *waitqueue.Queue, _ *waitqueue.Waiter) { q.WakeAfter("a", soon) }, soon},
		"a hint, and its timer": {func(q *waitqueue.Queue, first *waitqueue.Waiter) {
			q.WakeAfter("a", soon)
			first.SleepUntil(time.Now().Add(later))
		}, soon},
		"its timer, and a hint": {func(q *waitqueue.Queue, first *waitqueue.Waiter) {
			q.WakeAfter("a", later)
			first.SleepUntil(time.Now().Add(soon))
		}, soon},
		"a hint that it has seen, and not set its timer by": {func(q *waitqueue.Queue, first *waitqueue.Waiter) {
			first.SleepUntil(time.Now().Add(later))
			q.WakeAfter("a", soon)
			first.AskAt()
		}, soon},
		"a timer that has fired": {func(_ *waitqueue.Queue, first *waitqueue.Waiter) {
			first.SleepUntil(time.Now().Add(-time.Millisecond))
		}, 0},
	} {
		q := waitqueue.New()
		first, second := q.JoinSlot("a", time.Second, 3, false), q.JoinSlot("a", time.Second, 3, false)

		test.prepare(q, first)

		if !q.Deliver(first, grant(1)) {
			t.Fatal("a place wasn't delivered")
		}

		expect(t, what+": the second", second, true, false) // by the first's wake-up as the head

		select {
		case <-second.Hinted():
		default:
			t.Errorf("%s: the second isn't told when to ask", what)
		}

		if left := time.Until(second.AskAt()); left > test.want || left < test.want-30*time.Second {
			t.Errorf("%s: the second asks in %s, want %s", what, left, test.want)
		}
	}
}

// TestToldAfterDelivery: a waiter that is delivered a place when it has just been told when to ask passes that on.
func TestToldAfterDelivery(t *testing.T) {
	t.Parallel()

	q := waitqueue.New()
	first, second := q.JoinSlot("a", time.Second, 3, false), q.JoinSlot("a", time.Second, 3, false)
	first.SleepUntil(time.Now().Add(time.Hour))

	if !q.Deliver(first, grant(1)) {
		t.Fatal("a place wasn't delivered")
	}

	first.SleepUntil(time.Now().Add(time.Minute))

	if left := time.Until(second.AskAt()); left > time.Minute || left < 30*time.Second {
		t.Errorf("the second asks in %s, want a minute", left)
	}

	second.Leave()
	first.SleepUntil(time.Now()) // nobody is left
}

// TestFront: a waiter that takes the first place is the head, and asks. Those that came before follow.
func TestFront(t *testing.T) {
	t.Parallel()

	q := waitqueue.New()
	writer := q.JoinSpecial("a")
	expect(t, "the writer", writer, true, false)

	nested := q.JoinSlot("a", time.Second, 3, true)
	isHead(t, "a waiter has come in front", q, "a", nested)
	expect(t, "the one in front", nested, true, false)

	second := q.JoinSlot("a", time.Second, 3, true)
	isHead(t, "a second has come in front", q, "a", nested)

	nested.Leave()
	isHead(t, "the first has left", q, "a", second)
	second.Leave()
	isHead(t, "both have left", q, "a", writer)
	expect(t, "the writer", writer, true, false)
}

// TestTurnsForPlaces: of the processes that wait for one of several places, the one that holds the fewest asks
// first. One that holds more than its share is rich.
func TestTurnsForPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := waitqueue.New()
		w := q.JoinSlot("a", time.Second, 10, false)
		<-w.Woken() // as the new head

		// released is how long after a release for all this process asks.
		released := func() time.Duration {
			q.Released("a")

			select {
			case <-w.Woken():
				return 0
			case <-w.Hinted():
				return time.Until(w.AskAt())
			default:
				t.Fatal("neither woken nor told when to ask")

				return 0
			}
		}

		expect := func(what string, after time.Duration) {
			t.Helper()

			if got := released(); got < after || got > after+time.Millisecond || after == 0 && got > 0 {
				t.Errorf("%s: it asks after %s, want %s", what, got, after)
			}
		}

		q.Hold("a", 3)
		expect("three, and no others wait", 0)

		others(q, "a", time.Minute)
		expect("three", 3*time.Millisecond)
		q.EndRun("a")
		expect("three, and one whose run has ended", 4*time.Millisecond)
		q.Hold("a", -2)
		expect("one", time.Millisecond)

		if p := q.Politeness("a"); p < time.Millisecond || p > 2*time.Millisecond {
			t.Errorf("with one it asks again after %s", p)
		}

		isRich := func(what string, want bool) {
			t.Helper()

			if _, run := q.Head("a"); run.Rich != want {
				t.Errorf("%s: rich is %t", what, run.Rich)
			}
		}

		for _, rival := range []string{"x", "y", "z"} {
			q.Lost("a", rival)
		}

		q.Hold("a", 1)
		isRich("two of ten, among four", false)
		q.Hold("a", 1)
		isRich("three of ten, and one that is released", true)

		q.Hold("a", 1000)
		expect("a thousand", 10*time.Millisecond)
		q.Hold("a", -1003)
		expect("none", 0)
		q.EndRun("a")
		expect("one whose run has ended", time.Millisecond)

		// The next head is as polite.
		next := q.JoinSlot("a", time.Second, 10, false)
		q.Hold("a", 2)
		w.Leave()

		if left := time.Until(next.AskAt()); left < 2*time.Millisecond || left > 3*time.Millisecond {
			t.Errorf("the next head asks in %s", left)
		}
	})
}
