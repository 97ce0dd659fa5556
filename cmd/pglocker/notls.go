package main

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// onward goes on with a connection on which the server has refused TLS, as libpq does, where the connection string
// lets it (sslmode=prefer, the default). pgx closes it and makes another, for which the server starts another process.
type onward struct {
	dial pgconn.DialFunc

	// mu guards what pgx has closed last of those connections, nil if there is none.
	mu   sync.Mutex
	kept *asked
}

// goOnward has the connections of a configuration go on without TLS where they may.
func goOnward(config *pgx.ConnConfig) {
	if slices.ContainsFunc(config.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.TLSConfig == nil }) {
		config.DialFunc = (&onward{dial: config.DialFunc}).connect
	}
}

// connect is a [pgconn.DialFunc].
func (o *onward) connect(ctx context.Context, network, address string) (net.Conn, error) {
	if kept := o.replace(nil); kept != nil {
		if kept.ctx == ctx && kept.address == address {
			return kept.Conn, nil
		}

		_ = kept.Conn.Close()
	}

	conn, err := o.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}

	return &asked{Conn: conn, onward: o, ctx: ctx, address: address}, nil
}

// replace keeps another connection, or none, and returns the one before.
func (o *onward) replace(by *asked) (kept *asked) {
	o.mu.Lock()
	defer o.mu.Unlock()

	kept, o.kept = o.kept, by

	return kept
}

// asked is a connection whose server may have been asked for TLS.
type asked struct {
	net.Conn

	onward *onward
	// ctx is that of the dial. pgx has one for all that it does at one address for one connection. A later one must
	// not go on: the server may have closed this, or decided what it will answer when it was made.
	ctx     context.Context //nolint:containedctx // only compared
	address string
	// answered: the server has sent something. Only Read touches it.
	answered bool
	// refused: all that the server has sent is the letter that refuses TLS.
	refused atomic.Bool
}

// Read notes what the server answers. pgx reads the answer to its wish for TLS as one byte, and all else in blocks.
func (a *asked) Read(b []byte) (int, error) {
	n, err := a.Conn.Read(b)
	a.refused.Store(!a.answered && n == 1 && len(b) == 1 && b[0] == 'N')
	a.answered = a.answered || n > 0

	return n, err
}

// Close keeps the connection for the next dial of the same attempt, if the server has refused TLS.
func (a *asked) Close() error {
	if !a.refused.Load() {
		return a.Conn.Close()
	}

	if kept := a.onward.replace(a); kept != nil {
		return kept.Conn.Close()
	}

	return nil
}
