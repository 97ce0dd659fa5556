package coalesce_test

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/ismurov/pglocker/internal/coalesce"
)

// TestBrokenBatch: a batch that panics, or whose goroutine ends, answers all its callers,
// whether or not it had taken their requests; and those that come later are served.
func TestBrokenBatch(t *testing.T) {
	for name, leave := range map[string]func(){"panic": func() { panic("broken") }, "Goexit": runtime.Goexit} {
		for _, taken := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s taken=%t", name, taken), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var (
						running sync.WaitGroup
						first   = make(chan struct{})
						breaks  = true
						late    []string
					)

					b := coalesce.New(coalesce.Config[int, string]{
						One: func(context.Context, int) string {
							<-first

							return "first"
						},
						Many: func(_ context.Context, take func() []int) []string {
							if breaks && !taken {
								breaks = false
								leave()
							}

							reqs := take()

							if breaks {
								breaks = false
								leave()
							}

							return slices.Repeat([]string{"served"}, len(reqs))
						},
						Broken:  func(cause any) string { return fmt.Sprint("broken: ", cause) },
						Left:    func(context.Context, bool) string { return "left" },
						Late:    func(req int, res string) { late = append(late, fmt.Sprint(req, " ", res)) },
						Compare: cmp.Compare[int],
						Go:      running.Go,
						Limit:   limit, Patience: patience, Ready: ready, Grace: grace,
					})

					answers := make(chan string, limit)
					alone := make(chan string, 1)

					go func() { alone <- b.Do(t.Context(), 0) }()

					synctest.Wait()

					for i := range limit {
						go func() { answers <- b.Do(t.Context(), i+1) }()
					}

					synctest.Wait()
					close(first)

					if got := <-alone; got != "first" {
						t.Errorf("the first got %q", got)
					}

					want := "broken: <nil>"
					if name == "panic" {
						want = "broken: broken"
					}

					for range limit {
						if got := <-answers; got != want {
							t.Errorf("%q, want %q", got, want)
						}
					}

					if got := b.Do(t.Context(), 9); got != "served" && got != "first" {
						t.Errorf("the next got %q", got)
					}

					running.Wait()

					if late != nil {
						t.Errorf("late: %q", late)
					}
				})
			})
		}
	}
}

// TestBrokenAlone: the panic of a request that is alone is its caller's, and holds nobody
// back.
func TestBrokenAlone(t *testing.T) {
	breaks := true
	b := coalesce.New(coalesce.Config[int, string]{
		One: func(context.Context, int) string {
			if breaks {
				panic("broken")
			}

			return "served"
		},
		Left: func(context.Context, bool) string { return "left" },
	})

	func() {
		defer func() {
			if cause := recover(); cause != "broken" {
				t.Errorf("recovered %v", cause)
			}
		}()

		b.Do(t.Context(), 1)
	}()

	breaks = false

	if got := b.Do(t.Context(), 2); got != "served" {
		t.Errorf("the next got %q", got)
	}
}
