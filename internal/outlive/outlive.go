// Package outlive runs requests that may outlive their callers.
//
// A caller whose context ends returns at once. Its request goes on, on a goroutine of its own, and
// may still bring something that must be put back: a connection, or a grant. Exactly one of two gets
// what it brings: the caller, or a function for what comes late.
package outlive

// Request is a request under way.
type Request[T any] struct {
	result chan T
	left   chan struct{}
}

// Start runs ask on a goroutine that start starts. The caller then either receives from Result or
// calls Leave. After Leave, late gets the result, on that goroutine, as soon as ask has returned.
// With late nil the result is dropped. The goroutine ends when the result is received or late has
// returned.
//
// The result is the zero value if ask ends its goroutine by [runtime.Goexit]. A panic of ask is not
// recovered, and nothing is delivered then.
func Start[T any](start func(run func()), ask func() T, late func(T)) *Request[T] {
	r := &Request[T]{result: make(chan T), left: make(chan struct{})}

	start(func() {
		var result T

		defer func() {
			if cause := recover(); cause != nil {
				panic(cause)
			}

			select {
			case r.result <- result:
			case <-r.left:
				if late != nil {
					late(result)
				}
			}
		}()

		result = ask()
	})

	return r
}

// Result delivers the result, once.
func (r *Request[T]) Result() <-chan T { return r.result }

// Leave says that the caller won't receive the result. It returns at once, and is called once at
// most, by a caller that has not received the result.
func (r *Request[T]) Leave() { close(r.left) }
