package line

import (
	"fmt"
	"testing"
	"time"
)

// TestNoticesDue: a lock is told of once a minute, and of those that aren't waited for any
// more nothing is left.
func TestNoticesDue(t *testing.T) {
	t.Parallel()

	var (
		n     notices
		start = time.Now()
	)

	for _, test := range []struct {
		lock  string
		after time.Duration
		want  bool
	}{
		{"a", 0, true},
		{"a", time.Second, false},
		{"b", time.Second, true},
		{"a", 59 * time.Second, false},
		{"a", time.Minute, true},
		{"b", time.Minute, false},
		{"a", 90 * time.Second, false},
		{"b", 90 * time.Second, true},
	} {
		if got := n.due(test.lock, start.Add(test.after)); got != test.want {
			t.Errorf("%s after %s: %t", test.lock, test.after, got)
		}
	}

	for i := range 100_000 {
		n.due(fmt.Sprint(i), start.Add(time.Duration(i)*time.Second))

		if len(n.last) > 200 {
			t.Fatalf("%d locks are remembered, one was told of each second", len(n.last))
		}
	}
}
