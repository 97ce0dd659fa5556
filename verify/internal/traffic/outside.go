package traffic

import (
	"time"

	"github.com/ismurov/pglocker/verify/internal/resource"
)

// writeOutside adds one to the lock's value in the resource outside of the database:
// what was read, plus one. Both requests carry the token.
func (w *worker) writeOutside(h holding, lock Spec) {
	conn, err := resource.Dial(w.cfg.Resource, time.Second)
	if err != nil {
		return
	}

	defer conn.Close()

	value, ok := conn.Read(lock.ID, h.token)
	if !ok {
		return
	}

	sleep(h.ctx, w.upTo(w.cfg.Think))
	w.mayStop(lock)
	conn.Write(lock.ID, h.token, value+1) // whether it was accepted, the resource records
}
