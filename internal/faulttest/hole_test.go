package faulttest

import (
	"bytes"
	"database/sql"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// hole accepts connections and never answers.
type hole struct {
	net.Listener
	// pool counts those of the application's pool, and own those beside it.
	pool, own atomic.Int64
	done      sync.WaitGroup
}

// newHole returns a hole and a URL of it.
func newHole(t *testing.T) (*hole, string) {
	t.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	contract.Must(t, err)

	h := &hole{Listener: listener}

	var (
		mu    sync.Mutex
		conns []net.Conn
	)

	h.done.Go(func() {
		for {
			conn, err := h.Accept()
			if err != nil {
				return
			}

			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()

			h.done.Go(func() { h.swallow(conn) })
		}
	})

	t.Cleanup(func() {
		_ = h.Listener.Close() // ends the loop

		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()

		h.done.Wait()
	})

	return h, "postgres://postgres@" + listener.Addr().String() + "/postgres?sslmode=disable"
}

// swallow looks at the first message of a connection, which has its name.
func (h *hole) swallow(conn net.Conn) {
	first := make([]byte, 1<<10)

	n, err := conn.Read(first)
	switch {
	case err != nil:
	case bytes.Contains(first[:n], []byte("pglocker re")): // renew or release
		h.own.Add(1)
	default:
		h.pool.Add(1)
	}
}

// newLockerTelling returns a locker that writes its log on a page.
func newLockerTelling(t *testing.T, db *sql.DB, told *contract.Page) *pglocker.Locker {
	t.Helper()

	locker, err := pglocker.New(db, &pglocker.Config{Logger: slog.New(slog.NewTextHandler(told, nil))})
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	return locker
}
