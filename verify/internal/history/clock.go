package history

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now reads CLOCK_MONOTONIC, in nanoseconds. All processes of one machine see the same clock, so
// their events can be compared. The clock inside time.Time isn't accessible.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // every Linux has it
	}

	return ts.Nano()
}

// WallOffset is the wall clock minus [Now], in nanoseconds. The two are read one after the other, a
// few times, and the closest pair counts.
func WallOffset() int64 {
	var offset, best int64

	for range 16 {
		before := Now()
		wall := time.Now().UnixNano()
		after := Now()

		if took := after - before; best == 0 || took < best {
			best, offset = took, wall-before-took/2
		}
	}

	return offset
}
