package handover

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// ReturnSlots is [Desk.Return] of a grant of slots.
func (d *Desk) ReturnSlots(gate string, res store.Result, ttl time.Duration) {
	ctx, cancel := d.UntilClosed(context.Background())
	defer cancel()

	until := res.Sent.Add(ttl)
	if time.Until(until) <= 0 {
		d.Queue.Wake(gate)

		return
	}

	tenures := make([]Tenure, len(res.Grants))
	for i, g := range res.Grants {
		tenures[i] = Tenure{LockID: g.LockID, State: store.State{Generation: g.Row.Generation}, Gate: gate}
	}

	for i, err := range d.releaseAll(ctx, tenures, until) {
		if err != nil {
			t := tenures[i]
			d.Log.Warn("pglocker: a late grant was not returned", "lock", t.LockID, "token", t.State.Generation, "error", err)
		}
	}
}
