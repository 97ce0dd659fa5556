package history

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// Never is the end of an operation that didn't return.
const Never = math.MaxInt64

// Operation is an Invoke with its Return.
type Operation struct {
	// Event is the Return, or the Invoke with outcome Unknown if there was none.
	Event
	// Call and End are when it began and ended, End [Never] if it didn't.
	Call, End int64
}

// History is what all clients of a run recorded.
type History struct {
	// Operations are in the order of their calls, Notes in that of time, without those of
	// Renewals.
	Operations []*Operation
	Notes      []Event
	// Renewals are the notes of that kind. There are many, and they tell nothing of faults.
	Renewals []Event
}

// Load reads every history file of a folder. It leaves out a last line without an end: the process
// was killed while it wrote that line.
func Load(folder string) (*History, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.jsonl"))
	if err != nil {
		return nil, err
	}

	var events []Event

	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}

		more, _, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("history: %s: %w", path, err)
		}

		events = append(events, more...)
	}

	return Join(events)
}

// parse reads lines up to the last end of one, and returns how many bytes those are.
func parse(text []byte) (events []Event, read int, err error) {
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}

		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, 0, err
		}

		events = append(events, e)
		read += len(line)
	}

	return events, read, nil
}

// Join makes a history of events in any order.
func Join(events []Event) (*History, error) {
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })

	type id struct {
		client string
		op     int64
	}

	h := &History{}
	open := make(map[id]*Operation)

	for _, e := range events {
		switch e.Phase {
		case Invoke:
			op := &Operation{Event: e, Call: e.At, End: Never}
			op.Outcome = Unknown
			open[id{e.Client, e.Op}] = op
			h.Operations = append(h.Operations, op)
		case Return:
			op := open[id{e.Client, e.Op}]
			if op == nil {
				return nil, fmt.Errorf("history: %s returns from operation %d, which it didn't begin", e.Client, e.Op)
			}

			delete(open, id{e.Client, e.Op})
			op.Event, op.End = e, e.At
		case Note:
			if e.Kind == Renewed {
				h.Renewals = append(h.Renewals, e)

				continue
			}

			h.Notes = append(h.Notes, e)
		}
	}

	return h, nil
}

// Grants reports whether the operation asks for a lock, and so may be granted one.
func (k Kind) Grants() bool {
	switch k {
	case Acquire, Refresh, TryLock, Lock, Do, All, Permit, RLock, WLock, Lead, SQL:
		return true
	}

	return false
}

// Frees reports whether the operation releases a lock.
func (k Kind) Frees() bool {
	switch k {
	case Release, Relock, Unlock, Leave, Downgrade:
		return true
	}

	return false
}
