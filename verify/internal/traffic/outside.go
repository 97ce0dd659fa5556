package traffic

import (
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/resource"
)

// writeOutside adds one to the lock's value in the resource outside of the database:
// what was read, plus one. Both requests carry the token.
func (w *worker) writeOutside(lk *pglocker.Lock, lock Spec) {
	conn, err := resource.Dial(w.cfg.Resource, time.Second)
	if err != nil {
		return
	}

	defer conn.Close()

	value, ok := conn.Read(lock.ID, lk.Token())
	if !ok {
		return
	}

	sleep(lk.Context(), w.upTo(w.cfg.Think))
	w.mayStop(lock)
	conn.Write(lock.ID, lk.Token(), value+1) // whether it was accepted, the resource records
}
