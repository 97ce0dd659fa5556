package history

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now reads CLOCK_MONOTONIC, in nanoseconds. All processes of one machine see the same clock, so
// their events can be compared. The clock inside time.Time isn't accessible.
func Now() int64 { return read(unix.CLOCK_MONOTONIC) }

func read(clock int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		panic(err) // every Linux has it
	}

	return ts.Nano()
}

// WallOffset is the wall clock minus [Now], in nanoseconds.
func WallOffset() int64 { return offset(func() int64 { return time.Now().UnixNano() }) }

// UptimeOffset is for how long the machine is up, as /proc/uptime has it, minus [Now], in nanoseconds.
func UptimeOffset() int64 { return offset(func() int64 { return read(unix.CLOCK_BOOTTIME) }) }

// offset is another clock minus [Now]. The two are read one after the other, a few times, and the closest pair
// counts.
func offset(clock func() int64) int64 {
	var offset, best int64

	for range 16 {
		before := Now()
		other := clock()
		after := Now()

		if took := after - before; best == 0 || took < best {
			best, offset = took, other-before-took/2
		}
	}

	return offset
}
