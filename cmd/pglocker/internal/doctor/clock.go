package doctor

import (
	"context"
	"fmt"
	"time"
)

// reading is one look at two clocks. The server read its clock at some time within the trip.
type reading struct {
	server time.Time
	// sent is when this process sent the question, by its wall clock and its monotonic one.
	sent time.Time
	trip time.Duration
}

// offset is how far the server's clock is ahead of this machine's, give or take err.
func (r reading) offset() (offset, err time.Duration) {
	return r.server.Sub(r.sent.Round(0).Add(r.trip / 2)), r.trip / 2
}

// rate is how much faster the server's clock runs than this machine's monotonic one: 0 if they run alike.
// With it goes the largest error that the trips allow.
func rate(a, b reading) (rate, err float64) {
	here := b.sent.Sub(a.sent) + (b.trip-a.trip)/2
	there := b.server.Sub(a.server)

	return (there - here).Seconds() / here.Seconds(), ((a.trip + b.trip) / 2).Seconds() / here.Seconds()
}

// readings is how often each look reads the clocks: the shortest trip counts.
const readings = 5

// readClocks reads both clocks.
func (p *patient) readClocks(ctx context.Context) (best reading, err error) {
	conn, err := p.connected(ctx)
	if err != nil {
		return best, err
	}

	for n := range readings {
		r := reading{sent: time.Now()}

		if err := conn.QueryRow(ctx, "SELECT pg_catalog.clock_timestamp()").Scan(&r.server); err != nil {
			return best, err
		}

		if r.trip = time.Since(r.sent); n == 0 || r.trip < best.trip {
			best = r
		}
	}

	return best, nil
}

// checkClock compares the server's clock with this machine's, now and at the admission. A holder counts its lease
// by its own clock, so both must run at the same rate. How far they are apart doesn't matter.
func checkClock(ctx context.Context, p *patient, result *Check) error {
	select { // the longer between the looks, the smaller the error
	case <-time.After(time.Until(p.first.sent.Add(p.limits.Look))):
	case <-ctx.Done():
		return ctx.Err()
	}

	second, err := p.readClocks(ctx)
	if err != nil {
		return err
	}

	offset, within := second.offset()
	drift, uncertain := rate(p.first, second)

	result.seen("%s ± %s from this machine's, at %.2f %% ± %.2f %% of its rate", signed(offset), span(within),
		100*(1+drift), 100*uncertain)

	if beyond := max(drift, -drift) - uncertain; beyond > p.limits.Drift {
		result.find(Error, "clock-rate", fmt.Sprintf("In %s the server's clock went %s.",
			second.sent.Sub(p.first.sent).Round(time.Millisecond), second.server.Sub(p.first.server).Round(time.Millisecond)),
			"One of the two clocks was set, or runs at a wrong rate. A step ahead of the server's by more than "+
				"Config.SafetyMargin can make two holders of one lock; a step back makes every lease longer.",
			"chronyc tracking  # on both machines: let the clocks be slewed (chrony, ntpd -x), not stepped")
	}

	if offset.Abs()-within > p.limits.Offset {
		result.note("The clocks are %s apart. pglocker never compares them, but times in your logs and in the history don't fit.",
			span(offset.Abs()))
	}

	return nil
}

func signed(d time.Duration) string {
	if d < 0 {
		return "-" + span(-d)
	}

	return "+" + span(d)
}
