package handover

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/waitqueue"
)

// TestIsOver: while others wait, hand-overs in a row end after 16, and soon if this process holds more than its
// share of slots. A process that polls doesn't end them before the others have had time to poll.
func TestIsOver(t *testing.T) {
	t.Parallel()

	long := time.Now().Add(-2 * PollMax)

	for _, test := range []struct {
		what  string
		heard bool
		run   waitqueue.Run
		over  bool
	}{
		{"15", true, waitqueue.Run{Length: 15, Others: true}, false},
		{"16", true, waitqueue.Run{Length: 16, Others: true}, true},
		{"1, rich", true, waitqueue.Run{Length: 1, Others: true, Rich: true}, false},
		{"2, rich", true, waitqueue.Run{Length: 2, Others: true, Rich: true}, true},
		{"2, rich, polls", false, waitqueue.Run{Length: 2, Others: true, Rich: true, Began: long}, false},
		{"16, polls", false, waitqueue.Run{Length: 16, Others: true, Began: long}, true},
		{"16, polls, just begun", false, waitqueue.Run{Length: 16, Others: true, Began: time.Now().Add(time.Hour)}, false},
	} {
		d := New(Config{Heard: func() bool { return test.heard }})

		if over := d.isOver(test.run); over != test.over {
			t.Errorf("%s: over is %t", test.what, over)
		}
	}
}
