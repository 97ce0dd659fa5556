package coalesce_test

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ismurov/pglocker/internal/coalesce"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	limit    = 4
	patience = 20 * time.Millisecond
	ready    = 20 * patience
	grace    = time.Second
)

// server takes requests, which are numbers, and answers each with a text when it is
// told to.
type server struct {
	batcher *coalesce.Batcher[int, string]

	// mu guards what follows.
	mu   sync.Mutex
	sent []*statement
	// ready is closed while batches need not wait to be sent. If it is nil, each has to
	// wait for so long.
	ready   chan struct{}
	readyIn time.Duration
	// waiting counts those that do.
	waiting int
	// late are the answers that came too late.
	late []string
	// running are the batches.
	running sync.WaitGroup
}

// statement is what was sent.
type statement struct {
	reqs []int
	lone bool
	ctx  context.Context
	// answer is closed to answer it.
	answer chan struct{}
}

func newServer() *server {
	s := &server{ready: make(chan struct{})}
	close(s.ready)

	s.batcher = coalesce.New(coalesce.Config[int, string]{
		One: func(ctx context.Context, req int) string {
			return s.send(ctx, []int{req}, true)[0]
		},
		Many: func(ctx context.Context, take func() []int) []string {
			s.mu.Lock()
			ready, readyIn := s.ready, s.readyIn
			s.waiting++
			s.mu.Unlock()

			answer := "not ready"

			var isReady <-chan time.Time
			if ready == nil {
				isReady = time.After(readyIn)
			}

			select {
			case <-ready:
				answer = ""
			case <-isReady:
				answer = ""
			case <-ctx.Done():
			}

			s.mu.Lock()
			s.waiting--
			s.mu.Unlock()

			reqs := take()
			if answer != "" {
				return slices.Repeat([]string{answer}, len(reqs))
			}

			if len(reqs) == 0 {
				return nil
			}

			return s.send(ctx, reqs, false)
		},
		Left: func(_ context.Context, sent bool) string {
			return fmt.Sprintf("left, sent=%v", sent)
		},
		Late: func(req int, res string) {
			s.mu.Lock()
			defer s.mu.Unlock()

			s.late = append(s.late, fmt.Sprint(req, ": ", res))
		},
		Compare:  cmp.Compare[int],
		Go:       s.running.Go,
		Limit:    limit,
		Patience: patience,
		Ready:    ready,
		Grace:    grace,
	})

	return s
}

func (s *server) send(ctx context.Context, reqs []int, lone bool) (answers []string) {
	st := &statement{reqs: reqs, lone: lone, ctx: ctx, answer: make(chan struct{})}

	s.mu.Lock()
	s.sent = append(s.sent, st)
	s.mu.Unlock()

	select {
	case <-st.answer:
	case <-ctx.Done():
		return slices.Repeat([]string{"cancelled"}, len(reqs))
	}

	for _, r := range reqs {
		answers = append(answers, fmt.Sprint("answer to ", r))
	}

	return answers
}

// statements returns what was sent by now.
func (s *server) statements() []*statement {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()

	return slices.Clone(s.sent)
}

// caller is one that has called Do.
type caller struct {
	leave  context.CancelFunc
	answer chan string
}

// call calls Do and returns when the request is sent or in the queue.
func (s *server) call(req int) caller {
	ctx, cancel := context.WithCancel(context.Background())
	c := caller{leave: cancel, answer: make(chan string, 1)}

	go func() {
		defer cancel()
		c.answer <- s.batcher.Do(ctx, req)
	}()

	synctest.Wait()

	return c
}

// got is the answer that the caller has by now, or "".
func (c caller) got() string {
	synctest.Wait()

	select {
	case a := <-c.answer:
		return a
	default:
		return ""
	}
}

func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()

	if got != want {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func expectReqs(t *testing.T, st *statement, want ...int) {
	t.Helper()

	if !slices.Equal(st.reqs, want) {
		t.Fatalf("sent %v, want %v", st.reqs, want)
	}
}

// TestAloneAtOnce: who is alone waits for nobody, nor for a timer.
func TestAloneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, began := newServer(), time.Now()

		for n := range 3 {
			c := s.call(n)
			sent := s.statements()
			expect(t, "statements", len(sent), n+1)
			expect(t, "lone", sent[n].lone, true)
			close(sent[n].answer)
			expect(t, "answer", c.got(), fmt.Sprint("answer to ", n))
		}

		expect(t, "time passed", time.Since(began), 0)
	})
}

// TestGather: what comes while a statement is in flight goes together after it, in
// order, each caller with its own answer, and no more than the limit at once.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := s.call(100)

		var callers []caller
		for _, n := range []int{5, 3, 9, 1, 7, 8} {
			callers = append(callers, s.call(n))
		}

		expect(t, "statements while the first is in flight", len(s.statements()), 1)
		close(s.statements()[0].answer)
		expect(t, "first", first.got(), "answer to 100")

		expect(t, "statements", len(s.statements()), 2)
		expectReqs(t, s.statements()[1], 1, 3, 5, 9)
		expect(t, "answered early", callers[0].got(), "")
		close(s.statements()[1].answer)

		for i, n := range []int{5, 3, 9, 1} {
			expect(t, "answer", callers[i].got(), fmt.Sprint("answer to ", n))
		}

		expectReqs(t, s.statements()[2], 7, 8)
		close(s.statements()[2].answer)
		expect(t, "answer", callers[4].got(), "answer to 7")
		expect(t, "answer", callers[5].got(), "answer to 8")

		s.running.Wait()
	})
}

// TestAfterACrowd: who comes first after a batch of several doesn't go alone, and who
// then was alone does.
func TestAfterACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		callers := []caller{s.call(1), s.call(2), s.call(3)}

		for n, lone := range []bool{true, false, false, true} {
			if n >= 2 {
				callers = append(callers, s.call(n+2))
			}

			sent := s.statements()
			expect(t, "statements", len(sent), n+1)
			expect(t, "lone", sent[n].lone, lone)
			close(sent[n].answer)
			synctest.Wait()
		}

		for i, c := range callers {
			expect(t, "answer", c.got(), fmt.Sprint("answer to ", i+1))
		}

		s.running.Wait()
	})
}

// TestTakesAlong: after a batch of several, those who are ready to run go with the first
// of them.
func TestTakesAlong(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // or they come while others run

	const rounds = 100

	together := 0

	for range rounds {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()

			for n := range 3 {
				s.call(n)
			}

			close(s.statements()[0].answer)
			close(s.statements()[1].answer)
			synctest.Wait()

			var callers sync.WaitGroup
			for n := range limit {
				callers.Go(func() { s.batcher.Do(t.Context(), n) })
			}

			third := s.statements()[2]
			if len(third.reqs) == limit {
				together++
			}

			close(third.answer)

			if rest := s.statements()[3:]; len(rest) > 0 {
				close(rest[0].answer)
			}

			callers.Wait()
			s.running.Wait()
		})
	}

	// The scheduler promises nothing.
	t.Logf("in %d of %d rounds", together, rounds)

	if together < rounds*3/4 {
		t.Errorf("only in %d of %d rounds", together, rounds)
	}
}

// TestOvertake: a statement that takes long holds the next one back for so long and
// no longer; its own answer still counts.
func TestOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		slow := s.call(1)

		time.Sleep(patience / 2)

		second := s.call(2)

		time.Sleep(patience/2 - time.Nanosecond)
		expect(t, "statements before the patience is over", len(s.statements()), 1)
		time.Sleep(time.Nanosecond)
		expect(t, "statements after", len(s.statements()), 2)

		// The second holds back those after it, as the first did.
		third := s.call(3)
		expect(t, "statements beside two", len(s.statements()), 2)

		close(s.statements()[0].answer)
		expect(t, "slow", slow.got(), "answer to 1")
		expect(t, "statements after the end of the overtaken one", len(s.statements()), 2)

		close(s.statements()[1].answer)
		expect(t, "second", second.got(), "answer to 2")
		expectReqs(t, s.statements()[2], 3)
		close(s.statements()[2].answer)
		expect(t, "third", third.got(), "answer to 3")

		s.running.Wait()
	})
}

// TestLeave: who leaves gets its answer at once, and is told whether its request is
// out; the others of the batch get theirs.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := s.call(1)
		queued, stays, flying := s.call(2), s.call(3), s.call(4)

		queued.leave()
		expect(t, "left the queue", queued.got(), "left, sent=false")
		close(s.statements()[0].answer)
		expect(t, "first", first.got(), "answer to 1")
		expectReqs(t, s.statements()[1], 3, 4)

		flying.leave()
		expect(t, "left in flight", flying.got(), "left, sent=true")
		time.Sleep(2 * grace)
		expect(t, "cancelled", s.statements()[1].ctx.Err() != nil, false)

		close(s.statements()[1].answer)
		expect(t, "who stays", stays.got(), "answer to 3")
		expect(t, "too late", strings.Join(s.late, ", "), "4: answer to 4")

		gone, cancel := context.WithCancel(context.Background())
		cancel()
		expect(t, "came too late", s.batcher.Do(gone, 5), "left, sent=false")

		s.running.Wait()
	})
}

// TestAllLeave: a batch that nobody waits for any more goes on for the time of grace.
func TestAllLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.call(1)

		a, b := s.call(2), s.call(3)

		close(s.statements()[0].answer)

		sent := s.statements()[1]

		a.leave()
		b.leave()
		expect(t, "a", a.got(), "left, sent=true")
		expect(t, "b", b.got(), "left, sent=true")

		time.Sleep(grace - time.Nanosecond)
		synctest.Wait()
		expect(t, "cancelled early", sent.ctx.Err() != nil, false)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		expect(t, "cancelled", sent.ctx.Err() != nil, true)

		s.running.Wait()
	})
}

// TestNotReady: while nothing can be sent, everybody waits together, leaving is
// exact, and who comes later is served.
func TestNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.call(1)

		s.ready = make(chan struct{})
		a, b := s.call(2), s.call(3)

		close(s.statements()[0].answer)
		synctest.Wait()
		expect(t, "waiting to be sent", s.waiting, 1)

		a.leave()
		b.leave()
		expect(t, "a", a.got(), "left, sent=false")
		expect(t, "b", b.got(), "left, sent=false")
		synctest.Wait()
		expect(t, "waiting for nobody", s.waiting, 0)

		c := s.call(4)
		expectReqs(t, s.statements()[1], 4)
		close(s.statements()[1].answer)
		expect(t, "c", c.got(), "answer to 4")

		s.running.Wait()
	})
}

// TestNotReadyForLong: several batches may wait to be sent, but not without bound, and
// the first that can takes all. One that is given up for a new one takes nothing.
func TestNotReadyForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.call(1)

		s.ready = make(chan struct{})
		a, b := s.call(2), s.call(3)

		close(s.statements()[0].answer)
		time.Sleep(100 * patience)
		synctest.Wait()
		expect(t, "waiting to be sent", s.waiting, 4)

		// What is ready now helps the next one that begins, whatever the others met with.
		s.mu.Lock()
		s.ready = make(chan struct{})
		close(s.ready)
		s.mu.Unlock()
		time.Sleep(ready)
		expect(t, "statements", len(s.statements()), 2)
		expect(t, "waiting for nobody", s.waiting, 0)
		expectReqs(t, s.statements()[1], 2, 3)
		close(s.statements()[1].answer)
		expect(t, "a", a.got(), "answer to 2")
		expect(t, "b", b.got(), "answer to 3")

		// Nobody waits: those that are still not ready end by being overtaken no more.
		c := s.call(4)
		s.mu.Lock()
		s.ready = make(chan struct{})
		s.mu.Unlock()

		d := s.call(5)
		close(s.statements()[2].answer)
		expect(t, "c", c.got(), "answer to 4")
		time.Sleep(3 * patience)

		d.leave()
		expect(t, "d", d.got(), "left, sent=false")
		synctest.Wait()
		expect(t, "waiting for nobody", s.waiting, 0)

		s.running.Wait()
	})
}

// TestSlowToBeReady: if all take long to be ready, the oldest are waited for.
func TestSlowToBeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.call(1)

		s.ready, s.readyIn = nil, ready-time.Nanosecond
		a, b := s.call(2), s.call(3)

		close(s.statements()[0].answer)
		time.Sleep(ready)

		sent := s.statements()
		expect(t, "statements", len(sent), 2)
		expectReqs(t, sent[1], 2, 3)
		close(sent[1].answer)
		expect(t, "a", a.got(), "answer to 2")
		expect(t, "b", b.got(), "answer to 3")

		s.running.Wait()
	})
}

// TestCrowd: under a crowd, of whom some leave at any moment, each gets the answer to
// its own request.
func TestCrowd(t *testing.T) {
	var running sync.WaitGroup

	s := coalesce.New(coalesce.Config[int, int]{
		One: func(_ context.Context, req int) int { return req },
		Many: func(_ context.Context, take func() []int) []int {
			return take()
		},
		Left: func(context.Context, bool) int { return -1 },
		Late: func(req, res int) {
			if req != res {
				t.Errorf("asked %d, got %d, too late", req, res)
			}
		},
		Compare:  cmp.Compare[int],
		Go:       running.Go,
		Limit:    limit,
		Patience: time.Microsecond,
		Grace:    time.Millisecond,
	})

	var (
		group sync.WaitGroup
		left  int
		mu    sync.Mutex
	)

	for n := range 64 {
		group.Go(func() {
			for i := range 500 {
				ctx, cancel := context.WithCancel(t.Context())
				if i%7 == 0 {
					go cancel()
				}

				want := n*1000 + i

				switch got := s.Do(ctx, want); got {
				case want:
				case -1:
					mu.Lock()
					left++
					mu.Unlock()

					if ctx.Err() == nil {
						t.Error("told that it has left")
					}
				default:
					t.Errorf("asked %d, got %d", want, got)
				}

				cancel()
			}
		})
	}

	group.Wait()
	running.Wait()
	t.Logf("%d of %d left", left, 64*500)
}
