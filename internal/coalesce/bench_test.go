package coalesce_test

import (
	"cmp"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/coalesce"
)

// BenchmarkDo is one request of a lone caller, whose statement takes no time, and of many
// callers, whose statements take as long as a fast server's.
func BenchmarkDo(b *testing.B) {
	const statement = 50 * time.Microsecond

	for name, crowd := range map[string]int{"alone": 0, "crowd": 100} {
		b.Run(name, func(b *testing.B) {
			var running sync.WaitGroup

			batcher := coalesce.New(coalesce.Config[int, int]{
				One: func(_ context.Context, req int) int { return req },
				Many: func(_ context.Context, take func() []int) []int {
					reqs := take()
					time.Sleep(statement)

					return reqs
				},
				Left:     func(context.Context, bool) int { return 0 },
				Late:     func(int, int) {},
				Broken:   func(any) int { return 0 },
				Go:       running.Go,
				Compare:  cmp.Compare[int],
				Limit:    1000,
				Patience: time.Minute,
				Ready:    time.Minute,
				Grace:    time.Minute,
			})

			b.ReportAllocs()

			if crowd == 0 {
				for n := range b.N {
					batcher.Do(b.Context(), n)
				}

				return
			}

			b.SetParallelism(crowd)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					batcher.Do(b.Context(), 1)
				}
			})
			running.Wait()
		})
	}
}
