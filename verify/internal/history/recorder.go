package history

import (
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
)

// Recorder appends events to a file, each by one write. What was written is with the kernel, and
// survives the SIGKILL of the process.
type Recorder struct {
	file   *os.File
	client string
	ops    atomic.Int64
}

// NewRecorder makes the file.
func NewRecorder(path, client string) (*Recorder, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}

	return &Recorder{file: file, client: client}, nil
}

// Invoke records the start of an operation, and returns it for the Return.
func (r *Recorder) Invoke(e Event) Event {
	e.Phase, e.Op = Invoke, r.ops.Add(1)
	e.At = Now()
	r.append(&e)

	return e
}

// InvokeAll is Invoke for a request for several locks. It returns an event for each.
func (r *Recorder) InvokeAll(e Event, locks []string) []Event {
	first := r.ops.Add(int64(len(locks))) - int64(len(locks)) + 1
	all := make([]Event, len(locks))
	e.Phase, e.Request, e.At = Invoke, first, Now()

	for i, lock := range locks {
		e.Lock, e.Op = lock, first+int64(i)
		r.append(&e)
		all[i] = e
	}

	return all
}

// ReturnAll is Return for all of them.
func (r *Recorder) ReturnAll(all []Event) {
	now := Now()

	for _, e := range all {
		e.At = now
		r.Return(e)
	}
}

// Number is one that no operation of this process has.
func (r *Recorder) Number() int64 { return r.ops.Add(1) }

// Granted records, once a request has been granted more than one row, the operations for all rows
// but the first. They began when the request did, and end now.
func (r *Recorder) Granted(e Event, called int64) {
	e.Phase, e.Op, e.At = Invoke, r.ops.Add(1), called
	r.append(&e)

	e.At = 0
	r.Return(e)
}

// Return records the end of an operation at this moment, or at the one that is set.
func (r *Recorder) Return(e Event) {
	e.Phase = Return
	r.stamp(&e)
}

// Note records an event that has no end, now or at the moment that is set.
func (r *Recorder) Note(e Event) {
	e.Phase = Note
	r.stamp(&e)
}

func (r *Recorder) stamp(e *Event) {
	if e.At == 0 {
		e.At = Now()
	}

	r.append(e)
}

func (r *Recorder) append(e *Event) {
	e.Client = r.client

	line, err := json.Marshal(e)
	if err != nil {
		panic(err) // plain fields only
	}

	// A history with holes proves nothing, so the process can't go on.
	if _, err := r.file.Write(append(line, '\n')); err != nil {
		panic(fmt.Errorf("history: %w", err))
	}
}

// Close closes the file.
func (r *Recorder) Close() error {
	return r.file.Close()
}
