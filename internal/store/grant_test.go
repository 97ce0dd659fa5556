package store

import (
	"context"
	"errors"
	"testing"
)

// TestOverIsUnknown: a request that was granted a lease which was over by then, and fails
// after that, isn't told that it was refused; one that was granted nothing is.
func TestOverIsUnknown(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name    string
		grant   grant
		unknown bool
	}{
		{"granted nothing", grant{}, false},
		{"granted, and over", grant{over: true}, true},
		{"a reply was lost", grant{doubtful: true}, true},
	} {
		err := test.grant.doubt(context.DeadlineExceeded)
		if errors.Is(err, ErrUnknownOutcome) != test.unknown || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, unknown wanted: %t", test.name, err, test.unknown)
		}

		if test.grant.doubtful {
			continue
		}

		if err := test.grant.doubt(nil); err != nil {
			t.Errorf("%s, and nothing failed: %v", test.name, err)
		}
	}
}
