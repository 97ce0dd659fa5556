package store

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker/internal/listen"
)

// OpenListening opens a connection that can listen. listen.ErrUnsupported: the
// driver can't, or the pool is so small that another connection can't be meant, or
// the table has no room for a mark that somebody waits, without which no release
// notifies.
func (s *Store) OpenListening(ctx context.Context) (listen.Conn, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return nil, err
	}

	if !sh.full {
		return nil, fmt.Errorf("%w: table %s has no column contended_until, or not all of those that go with it",
			listen.ErrUnsupported, s.table)
	}

	connector, ok := connectorOf(s.db)
	if !ok || !s.pgx {
		return nil, fmt.Errorf("%w: %T", listen.ErrUnsupported, s.db.Driver())
	}

	if s.db.Stats().MaxOpenConnections == 1 {
		return nil, fmt.Errorf("%w: the pool is of one connection", listen.ErrUnsupported)
	}

	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}

	conn, ok := raw.(pgxConn)
	if !ok {
		_ = raw.Close()

		return nil, fmt.Errorf("%w: %T", listen.ErrUnsupported, raw)
	}

	return &listening{driver: raw, pgx: conn.Conn()}, nil
}

type listening struct {
	driver driver.Conn
	pgx    *pgx.Conn
}

func (l *listening) Listen(ctx context.Context, channel string) error {
	_, err := l.pgx.Exec(ctx, "LISTEN "+quoteIdentifier(channel))

	return err
}

func (l *listening) Wait(ctx context.Context) (channel, payload string, err error) {
	n, err := l.pgx.WaitForNotification(ctx)
	if err != nil {
		return "", "", err
	}

	return n.Channel, n.Payload, nil
}

func (l *listening) Close() { _ = l.driver.Close() } // nothing was left to be said on it

var sqlNotify = qualified("SELECT pg_catalog.pg_notify($1::{text}, '')")

// Notify sends an empty notification.
func (s *Store) Notify(ctx context.Context, channel string) error {
	_, err := s.db.ExecContext(ctx, sqlNotify, s.arguments([]any{channel})...)

	return err
}
