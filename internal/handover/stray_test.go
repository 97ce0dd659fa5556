package handover

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestLooks: a stray grant is looked for six times, the last time in line for the row, then slowly, and no longer than
// strayFor. A lease that is too short for slow looks is left to expire.
func TestLooks(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		ttl      time.Duration
		min, max time.Duration
	}{
		{ttl: time.Hour, min: strayFor, max: strayFor + 2*slowDelay},
		{ttl: 3 * time.Second, min: time.Second, max: 3 * time.Second},
	} {
		t.Run(test.ttl.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var (
					s     strays
					began = time.Now()
				)

				if _, first := s.add("a", []string{"x"}, began, test.ttl); !first {
					t.Fatal("not the first")
				}

				for n := 1; ; n++ {
					l, more := s.next("a")
					if !more {
						break
					}

					if l.last != (n == firstLooks) || l.slow != (n > firstLooks) {
						t.Errorf("look %d: last %t, slow %t", n, l.last, l.slow)
					}

					if n == firstLooks && time.Since(began) > 2*time.Second {
						t.Errorf("the last of the first looks is after %s", time.Since(began))
					}

					if s.looked("a", l, false) {
						break
					}

					time.Sleep(l.delay)
				}

				if took := time.Since(began); took < test.min || took > test.max {
					t.Errorf("looked for %s, want %s to %s", took, test.min, test.max)
				}

				if len(s.locks) != 0 {
					t.Error("something is left")
				}
			})
		})
	}
}

// TestLooksBeginAgain: a grant that is added is looked for at once, from the beginning, and the oldest is forgotten
// where there are too many.
func TestLooksBeginAgain(t *testing.T) {
	t.Parallel()

	var (
		s   strays
		now = time.Now()
	)

	added, _ := s.add("a", []string{"first"}, now, time.Hour)
	<-added

	for range firstLooks {
		l, _ := s.next("a")
		s.looked("a", l, false)
	}

	if l, _ := s.next("a"); !l.slow {
		t.Error("the looks are not slow")
	}

	for i := range maxStrays {
		if _, first := s.add("a", []string{fmt.Sprint(i)}, now.Add(time.Second), time.Hour); first {
			t.Fatal("the first of a lock, again")
		}
	}

	l, _ := s.next("a")
	if len(added) != 1 || l.slow || len(l.grants) != maxStrays {
		t.Errorf("told %d times, slow %t, %d grants", len(added), l.slow, len(l.grants))
	}

	for _, grant := range l.grants {
		if grant == "first" {
			t.Error("the oldest is remembered")
		}
	}
}

// TestFreedGrantIsSettled: a grant that was released is settled if it was the only one.
func TestFreedGrantIsSettled(t *testing.T) {
	t.Parallel()

	var s strays

	s.add("a", []string{"x", "y"}, time.Now(), time.Hour)

	l, _ := s.next("a")
	if s.looked("a", l, true) {
		t.Error("settled, and one of two is still out")
	}

	s.add("b", []string{"x"}, time.Now(), time.Hour)

	if l, _ = s.next("b"); !s.looked("b", l, true) {
		t.Error("not settled")
	}
}
