package faulttest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/ismurov/pglocker/internal/contract"
)

// dials counts the connections of a handle, and of whatever is opened beside it, but for those
// that only carry a request to cancel.
type dials struct {
	mu             sync.Mutex
	now, peak, all int
}

func (d *dials) count(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}

	d.mu.Lock()
	defer d.mu.Unlock()

	d.now, d.all = d.now+1, d.all+1

	return &dialled{Conn: conn, of: d}, nil
}

func (d *dials) note() {
	d.mu.Lock()
	defer d.mu.Unlock()

	d.peak = max(d.peak, d.now)
}

func (d *dials) total() int {
	d.mu.Lock()
	defer d.mu.Unlock()

	return d.all
}

func (d *dials) check(t *testing.T, limit int) {
	t.Helper()

	d.mu.Lock()
	defer d.mu.Unlock()

	t.Logf("at most %d connections", d.peak)

	if d.peak > limit {
		t.Errorf("%d connections at once, want %d at most", d.peak, limit)
	}
}

type dialled struct {
	net.Conn
	of   *dials
	once sync.Once
}

// Write doesn't count a connection any more that turns out to be for a request to cancel.
func (c *dialled) Write(b []byte) (int, error) {
	const cancelRequest = 80877102

	if len(b) == 16 && binary.BigEndian.Uint32(b[4:]) == cancelRequest {
		c.over()
	}

	c.of.note()

	return c.Conn.Write(b)
}

func (c *dialled) Close() error {
	err := c.Conn.Close()
	c.over()

	return err
}

func (c *dialled) over() {
	c.once.Do(func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()

		c.of.now--
	})
}

// Dial, DialTimeout and DialContext are what lib/pq asks for.
func (d *dials) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d *dials) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	return d.count(net.DialTimeout(network, address, timeout))
}

func (d *dials) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer

	return d.count(dialer.DialContext(ctx, network, address))
}

// open returns a handle whose connections are counted.
func (d *dials) open(t *testing.T, driverName, url string) *sql.DB {
	t.Helper()

	var connector driver.Connector

	if driverName == "pgx" {
		cfg, err := pgx.ParseConfig(url)
		contract.Must(t, err)

		cfg.DialFunc = d.DialContext
		connector = stdlib.GetConnector(*cfg)
	} else {
		own, err := pq.NewConnector(url)
		contract.Must(t, err)
		own.Dialer(d)

		connector = own
	}

	db := sql.OpenDB(connector)
	t.Cleanup(func() { _ = db.Close() }) // nothing is under way

	return db
}
