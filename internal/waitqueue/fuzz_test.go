package waitqueue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

// FuzzMarks: a process knows its own marks, on whatever lock, for as long as they stand,
// and takes one with another signature for another's.
func FuzzMarks(f *testing.F) {
	f.Add("a", int64(0), int64(1))
	f.Add("", int64(time.Minute)-1, int64(store.MarkModulus-1))
	f.Add("🔒", int64(9*time.Second), int64(1<<19))

	f.Fuzz(func(t *testing.T, id string, after, off int64) {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Duration(abs(after) % int64(2*time.Minute))) // anywhere in the time of a signature

			q := waitqueue.New()
			q.Join(id, time.Second)

			signature := q.Sign(id)
			if signature < 0 || signature >= store.MarkModulus {
				t.Fatalf("%q is signed %d", id, signature)
			}

			others := func(signature int64) bool {
				now := time.Now()
				first := now.UnixMicro() - now.UnixMicro()%store.MarkModulus + store.MarkModulus
				mark := time.UnixMicro(first + signature)

				if store.SignatureOf(mark) != signature {
					t.Fatalf("%s is signed %d, not %d", mark, store.SignatureOf(mark), signature)
				}

				q.FoundMark(id, mark, now)
				_, run := q.Head(id)

				return run.Others
			}

			time.Sleep(time.Minute) // no mark stands for longer

			if others(signature) {
				t.Fatalf("%q: the own mark is taken for another's", id)
			}

			// Two signatures are its own at a time, and this may be the other.
			foreign := (signature + 1 + abs(off)%(store.MarkModulus-1)) % store.MarkModulus
			if foreign != q.Sign(id) && !others(foreign) {
				t.Fatalf("%q: a mark signed %d, not %d, is taken for the own", id, foreign, signature)
			}
		})
	})
}

// abs is not negative.
func abs(n int64) int64 { return n & (1<<63 - 1) }
