package store

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker/internal/listen"
)

// OpenListening opens a connection that can listen. The error matches listen.ErrUnsupported if the
// driver can't, the pool is of one connection, or the table has no room for marks, without which no
// release notifies.
func (s *Store) OpenListening(ctx context.Context) (listen.Conn, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return nil, err
	}

	if sh.plain {
		return nil, fmt.Errorf("%w: the plain dialect has no notifications", listen.ErrUnsupported)
	}

	if !sh.full {
		return nil, fmt.Errorf("%w: table %s has no column contended_until, or not all of those that go with it",
			listen.ErrUnsupported, s.table)
	}

	if _, size := s.handle.usage(); size == 1 {
		return nil, fmt.Errorf("%w: the pool is of one connection", listen.ErrUnsupported)
	}

	if s.beside {
		return s.listenOnHandle(ctx)
	}

	connector, ok := connectorOf(s.db, ListenName)
	if !ok || !s.pgx {
		return nil, fmt.Errorf("%w: %T", listen.ErrUnsupported, s.db.Driver())
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

	return &listening{conn.Conn(), func() { _ = raw.Close() }}, nil
}

// listenOnHandle takes a connection out of the handle for as long as it listens.
func (s *Store) listenOnHandle(ctx context.Context) (listen.Conn, error) {
	conn, done, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}

	var own *pgx.Conn

	err = conn.Raw(func(driverConn any) error {
		native, ok := driverConn.(pgxConn)
		if !ok {
			return fmt.Errorf("%w: %T", listen.ErrUnsupported, driverConn)
		}

		own = native.Conn()

		return nil
	})
	if err != nil {
		done()

		return nil, err
	}

	return &listening{own, func() {
		// It listens, and must not be used for anything else.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })

		done()
	}}, nil
}

// listening is a connection that nobody else uses until close.
type listening struct {
	pgx   *pgx.Conn
	close func()
}

func (l *listening) Listen(ctx context.Context, channel string) error {
	_, err := l.pgx.Exec(ctx, "LISTEN "+quoteIdentifier(channel))

	// It refuses, and is likely to for minutes, unless the error is about connections, what runs beside,
	// resources, operators, systems, or defects. Instead of a read-only server another may be reached.
	if sqlState(err) != "" && !hasState(err, "08", "40", "53", "55", "57", "58", "XX", codeReadOnlyTransaction) {
		err = fmt.Errorf("%w: %w", listen.ErrRefused, err)
	}

	return err
}

func (l *listening) Wait(ctx context.Context) (channel, payload string, err error) {
	n, err := l.pgx.WaitForNotification(ctx)
	if err != nil {
		return "", "", err
	}

	return n.Channel, n.Payload, nil
}

func (l *listening) Close() { l.close() }

var sqlNotify = qualified("SELECT pg_catalog.pg_notify($1::{text}, '') IS NOT NULL")

// Notify sends an empty notification. The error matches [listen.ErrUnsent] if none was sent.
func (s *Store) Notify(ctx context.Context, channel string) error {
	a := ask(ctx, s, sqlNotify, []any{channel}, scanOne[bool])
	if a.err != nil && a.outcome != unknown {
		return fmt.Errorf("%w: %w", listen.ErrUnsent, a.err)
	}

	return a.err
}
