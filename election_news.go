package pglocker

import "sync"

// news wakes those in this Locker that wait for a change that is no lock's release alone: observers of
// elections, and leaders that may be asked to resign. It carries no facts. What it wakes looks at the row.
type news struct {
	// mu guards readers, by the payload that each wants.
	mu      sync.Mutex
	readers map[string]map[chan struct{}]struct{}
}

// subscribe returns a channel that has a token after each of the payloads was told. The caller calls done.
func (n *news) subscribe(payloads ...string) (told <-chan struct{}, done func()) {
	reader := make(chan struct{}, 1)

	n.mu.Lock()
	defer n.mu.Unlock()

	if n.readers == nil {
		n.readers = make(map[string]map[chan struct{}]struct{})
	}

	for _, payload := range payloads {
		if n.readers[payload] == nil {
			n.readers[payload] = make(map[chan struct{}]struct{})
		}

		n.readers[payload][reader] = struct{}{}
	}

	return reader, func() {
		n.mu.Lock()
		defer n.mu.Unlock()

		for _, payload := range payloads {
			delete(n.readers[payload], reader)

			if len(n.readers[payload]) == 0 {
				delete(n.readers, payload)
			}
		}
	}
}

func (n *news) tell(payload string) {
	n.mu.Lock()
	defer n.mu.Unlock()

	wake(n.readers[payload])
}

// tellAll is called when something may have been missed.
func (n *news) tellAll() {
	n.mu.Lock()
	defer n.mu.Unlock()

	for _, readers := range n.readers {
		wake(readers)
	}
}

func wake(readers map[chan struct{}]struct{}) {
	for reader := range readers {
		select {
		case reader <- struct{}{}:
		default: // it has not looked since it was last told
		}
	}
}
