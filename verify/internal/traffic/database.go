package traffic

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
)

// The drivers, as [Config.Driver] names them.
const (
	DriverPgx = "pgx"
	DriverPq  = "postgres"
	// DriverWrapped is lib/pq behind a driver that only passes on what it is asked.
	DriverWrapped = "postgres wrapped"
)

// openDatabase opens the client's database by its driver. The pauser is told what its connections
// send.
func openDatabase(cfg Config, p *pauser) (*sql.DB, error) {
	switch cfg.Driver {
	case DriverPgx:
		config, err := pgx.ParseConfig(cfg.URL)
		if err != nil {
			return nil, fmt.Errorf("traffic: %w", err)
		}

		config.DialFunc = pgconn.DialFunc(p.watch(dialFunc(config.DialFunc)))

		return stdlib.OpenDB(*config), nil
	case DriverPq, DriverWrapped:
		connector, err := pq.NewConnector(cfg.URL)
		if err != nil {
			return nil, fmt.Errorf("traffic: %w", err)
		}

		connector.Dialer(pqDialer{p.watch((&net.Dialer{}).DialContext)})

		if cfg.Driver == DriverWrapped {
			return sql.OpenDB(wrappedConnector{connector}), nil
		}

		return sql.OpenDB(connector), nil
	}

	return nil, fmt.Errorf("traffic: no driver is called %q", cfg.Driver)
}

// pqDialer is what lib/pq wants of a dialer.
type pqDialer struct{ dial dialFunc }

// DialContext implements [pq.DialerContext].
func (d pqDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d.dial(ctx, network, address)
}

// Dial implements [pq.Dialer].
func (d pqDialer) Dial(network, address string) (net.Conn, error) {
	return d.dial(context.Background(), network, address)
}

// DialTimeout implements [pq.Dialer].
func (d pqDialer) DialTimeout(network, address string, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()

	return d.dial(ctx, network, address)
}
