package ui

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// failures counts what a hub tells of.
var failures atomic.Int64

// counting is a hub whose reads take a time, and are counted.
func counting(takes time.Duration) (*hub, *atomic.Int64, *atomic.Pointer[error]) {
	var (
		reads  atomic.Int64
		failed atomic.Pointer[error]
	)

	h := newHub(func(ctx context.Context, _ query, _ any) (look, error) {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return look{}, ctx.Err()
		}

		n := reads.Add(1)
		if err := failed.Load(); err != nil {
			return look{}, *err
		}

		return look{data: n}, nil
	}, func(query, error) { failures.Add(1) }, 500*time.Millisecond)

	return h, &reads, &failed
}

// TestOneReaderForAll: a page is read once for all its viewers, and not at all when the last has left.
func TestOneReaderForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, reads, _ := counting(time.Millisecond)
		defer h.close()

		var leaves []func()

		for range 100 {
			_, leave := h.watch(query{page: "locks"})
			leaves = append(leaves, leave)
		}

		time.Sleep(10 * time.Second)

		if n := reads.Load(); n < 19 || n > 21 {
			t.Errorf("%d reads in ten seconds for a hundred viewers, want 20", n)
		}

		for _, leave := range leaves {
			leave()
		}

		synctest.Wait()

		n := reads.Load()

		h.mu.Lock()
		if v := h.find(query{page: "locks"}); v.running || v.watchers != 0 {
			t.Errorf("running %t, %d viewers after the last has left", v.running, v.watchers)
		}
		h.mu.Unlock()

		time.Sleep(time.Minute)

		if reads.Load() != n {
			t.Error("a page is read that nobody watches")
		}
	})
}

// TestSlowReads: the pause after a read is ten times as long as the read.
func TestSlowReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, reads, _ := counting(3 * time.Second)
		defer h.close()

		_, leave := h.watch(query{page: "locks"})
		defer leave()

		time.Sleep(3*33*time.Second + 3*time.Second + time.Millisecond)

		if n := reads.Load(); n != 4 {
			t.Errorf("%d reads of 3 s each in 102 s, want 4", n)
		}

		// Requests between two reads get the last one, and cause none.
		for range 10 {
			if s := h.get(t.Context(), query{page: "locks"}, time.Time{}, time.Second); s.data != int64(4) {
				t.Errorf("got %v", s.data)
			}
		}

		if n := reads.Load(); n != 4 {
			t.Errorf("%d reads after requests, want 4", n)
		}
	})
}

// TestGet: a request waits for the first read, for as long as its patience lasts, and one read serves many.
func TestGet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, reads, _ := counting(5 * time.Second)
		defer h.close()

		begun := time.Now()

		if s := h.get(t.Context(), query{}, time.Time{}, 2*time.Second); s.reads != 0 || time.Since(begun) != 2*time.Second {
			t.Errorf("%d reads after %s", s.reads, time.Since(begun))
		}

		if s := h.get(t.Context(), query{}, time.Time{}, time.Minute); s.data != int64(1) || time.Since(begun) != 5*time.Second {
			t.Errorf("%v after %s", s.data, time.Since(begun))
		}

		time.Sleep(time.Hour)

		if n := reads.Load(); n != 1 {
			t.Errorf("%d reads for requests in a row, want 1", n)
		}
	})
}

// TestGetSince: a request that follows on a change gets no read that began before.
func TestGetSince(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _, _ := counting(100 * time.Millisecond)
		defer h.close()

		h.get(t.Context(), query{}, time.Time{}, time.Minute)

		if s := h.get(t.Context(), query{}, time.Now(), time.Minute); s.data != int64(2) {
			t.Errorf("got read %v after a change", s.data)
		}

		_, leave := h.watch(query{})
		defer leave()

		time.Sleep(1050 * time.Millisecond) // amid the third read

		if s := h.get(t.Context(), query{}, time.Now(), time.Minute); s.data != int64(4) {
			t.Errorf("got read %v after a change amid a read", s.data)
		}
	})
}

// TestFailedReads: the last state stays, with its time and that of the first failure.
func TestFailedReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _, failed := counting(0)
		defer h.close()

		_, leave := h.watch(query{})
		defer leave()

		synctest.Wait()

		begun := time.Now()
		down := errors.New("down")

		failed.Store(&down)
		time.Sleep(10*time.Second + time.Millisecond)

		s := h.get(t.Context(), query{}, time.Time{}, 0)
		if s.data != int64(1) || !s.at.Equal(begun) || !errors.Is(s.err, down) || s.since.Sub(begun) != 500*time.Millisecond {
			t.Errorf("data %v of %s, error %v since %s", s.data, s.at.Sub(begun), s.err, s.since.Sub(begun))
		}

		failed.Store(nil)
		time.Sleep(2 * time.Second)

		if s := h.get(t.Context(), query{}, time.Time{}, 0); s.err != nil || s.data == int64(1) {
			t.Errorf("afterwards: data %v, error %v", s.data, s.err)
		}

		if n := failures.Load(); n != 1 {
			t.Errorf("told of %d failures, want the first", n)
		}
	})
}

// TestCloseEndsReads: also one that is under way.
func TestCloseEndsReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, reads, _ := counting(time.Hour)

		_, leave := h.watch(query{})
		defer leave()

		time.Sleep(time.Second)
		h.close()

		if reads.Load() != 0 {
			t.Error("Close waited for the read")
		}

		if s := h.get(t.Context(), query{page: "another"}, time.Time{}, time.Minute); s.reads != 0 {
			t.Error("read after Close")
		}
	})
}

// TestHubForgets: a viewer can't make the hub keep any number of pages.
func TestHubForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _, _ := counting(0)
		defer h.close()

		_, leave := h.watch(query{page: "kept"})
		defer leave()

		for n := range 10 * keptViews {
			h.get(t.Context(), query{page: "locks", after: string(rune('a' + n))}, time.Time{}, time.Second)
			synctest.Wait()
		}

		h.mu.Lock()
		defer h.mu.Unlock()

		if n := len(h.views); n > keptViews || h.views[query{page: "kept"}] == nil {
			t.Errorf("%d pages are kept, the watched one: %t", n, h.views[query{page: "kept"}] != nil)
		}
	})
}

// counts counts the pages that have a goroutine, and all that are kept.
func (h *hub) counts() (running, kept int) {
	h.mu.Lock()
	defer h.mu.Unlock()

	for _, v := range h.views {
		if v.running {
			running++
		}
	}

	return running, len(h.views)
}

// TestManyPages: requests for many pages at once don't all wait, and what they have read isn't kept.
func TestManyPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _, _ := counting(time.Second)
		defer h.close()

		watched := query{page: "watched"}

		_, leave := h.watch(watched)
		defer leave()

		h.get(t.Context(), watched, time.Time{}, time.Minute)

		const most = waitingViews + readers

		var served, refused atomic.Int64

		for n := range 10 * waitingViews {
			go func() {
				switch s := h.get(t.Context(), query{page: "locks", prefix: strconv.Itoa(n)}, time.Time{}, time.Hour); {
				case errors.Is(s.err, errTooMany):
					refused.Add(1)
				case s.reads == 1 && s.err == nil:
					served.Add(1)
				}
			}()
		}

		synctest.Wait()

		if running, kept := h.counts(); running > most+1 || kept > most+2 || refused.Load() < 10*waitingViews-most {
			t.Errorf("%d pages wait to be read, %d are kept, %d were refused", running, kept, refused.Load())
		}

		time.Sleep(time.Hour)

		if s := h.get(t.Context(), watched, time.Time{}, time.Minute); s.err != nil || s.reads < 2 {
			t.Errorf("the watched page: %d reads, error %v", s.reads, s.err)
		}

		if n := served.Load() + refused.Load(); n != 10*waitingViews || served.Load() < waitingViews {
			t.Errorf("%d requests were served, %d refused", served.Load(), refused.Load())
		}

		if running, kept := h.counts(); running != 1 || kept > keptViews {
			t.Errorf("afterwards %d pages are read, %d are kept", running, kept)
		}
	})
}

// TestManyLeave: a page that its viewers have left before its turn isn't read, and not kept.
func TestManyLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, reads, _ := counting(time.Second)
		defer h.close()

		for n := range 3 * keptViews {
			_, leave := h.watch(query{page: "locks", prefix: strconv.Itoa(n)})
			time.AfterFunc(time.Millisecond, leave)
		}

		time.Sleep(time.Minute)

		if running, kept := h.counts(); running != 0 || kept > keptViews || reads.Load() != readers-1 {
			t.Errorf("%d pages are read, %d are kept, after %d reads", running, kept, reads.Load())
		}
	})
}

// TestLockBesideScans: the page of a lock doesn't wait for those that read a large table.
func TestLockBesideScans(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHub(func(ctx context.Context, q query, _ any) (look, error) {
			takes := time.Millisecond
			if q.scans() {
				takes = time.Minute
			}

			select {
			case <-time.After(takes):
			case <-ctx.Done():
			}

			return look{}, ctx.Err()
		}, func(query, error) {}, time.Second)
		defer h.close()

		for _, page := range []string{"overview", "locks", "contention"} {
			_, leave := h.watch(query{page: page})
			defer leave()
		}

		synctest.Wait()

		if s := h.get(t.Context(), query{page: "lock", id: "x"}, time.Time{}, time.Second); s.reads != 1 {
			t.Error("the page of a lock isn't read within a second")
		}
	})
}
