package line

import (
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// TestContestedIsNotHeld: an answer that others were granted theirs first says of no lock that it is held. It
// doesn't take the place of one that does.
func TestContestedIsNotHeld(t *testing.T) {
	t.Parallel()

	var (
		errHeld   = errors.New("held")
		contested = store.Result{Verdict: store.Busy, Contested: true}
		w         = waiter{Line: &Line{Held: func(string, store.Row, time.Duration) error { return errHeld }}}
	)

	w.told.saw(contested)

	if err := w.lastHeld(); err != nil {
		t.Errorf("contested: %v", err)
	}

	w.told.saw(store.Result{Verdict: store.Busy})
	w.told.saw(contested)

	if err := w.lastHeld(); !errors.Is(err, errHeld) {
		t.Errorf("contested after it was held: %v", err)
	}
}
