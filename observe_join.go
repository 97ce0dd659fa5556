package pglocker

import "context"

// JoinObservers returns an observer that tells all of the given ones, in this order. Each start's context goes from
// one to the next. It implements every interface of this package for observers, and tells each observer what that one
// implements. nil is left out. Of none it returns nil, and nobody observes.
func JoinObservers(observers ...Observer) Observer {
	var all joined

	for _, o := range observers {
		if o != nil {
			all = append(all, newWatch(o))
		}
	}

	if len(all) == 0 {
		return nil
	}

	return all
}

type joined []watch

func (j joined) OperationStart(ctx context.Context, start OperationStart) context.Context {
	for _, w := range j {
		ctx = w.observer.OperationStart(ctx, start)
	}

	return ctx
}

func (j joined) OperationEnd(ctx context.Context, end OperationEnd) {
	for _, w := range j {
		w.observer.OperationEnd(ctx, end)
	}
}

func (j joined) LockLost(lost LockLost) {
	for _, w := range j {
		w.observer.LockLost(lost)
	}
}

func (j joined) HoldStart(ctx context.Context, start HoldStart) context.Context {
	for _, w := range j {
		if w.holds != nil {
			ctx = w.holds.HoldStart(ctx, start)
		}
	}

	return ctx
}

func (j joined) HoldEnd(ctx context.Context, end HoldEnd) {
	for _, w := range j {
		if w.holds != nil {
			w.holds.HoldEnd(ctx, end)
		}
	}
}

func (j joined) LockRenewed(renewed LockRenewed) {
	for _, w := range j {
		if w.renewals != nil {
			w.renewals.LockRenewed(renewed)
		}
	}
}

func (j joined) BatchSent(batch BatchSent) {
	for _, w := range j {
		if w.batches != nil {
			w.batches.BatchSent(batch)
		}
	}
}

func (j joined) ListenerChanged(changed ListenerChanged) {
	for _, w := range j {
		if w.listeners != nil {
			w.listeners.ListenerChanged(changed)
		}
	}
}
