package store

import (
	"context"
	"fmt"

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

	connector, ok := s.handle.connector(ListenName)
	if !ok || !s.pgx {
		return nil, fmt.Errorf("%w: %T", listen.ErrUnsupported, s.handle.db.Driver())
	}

	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}

	own, ok := pgxConnOf(raw)
	if !ok {
		_ = raw.Close()

		return nil, fmt.Errorf("%w: %T", listen.ErrUnsupported, raw)
	}

	return listeningOn(own, func() { _ = raw.Close() }), nil
}

// listenOnHandle takes a connection out of the handle for as long as it listens.
func (s *Store) listenOnHandle(ctx context.Context) (listen.Conn, error) {
	conn, done, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}

	var own pgxConn

	err = conn.Raw(func(driverConn any) error {
		var native bool
		if own, native = pgxConnOf(driverConn); !native {
			return fmt.Errorf("%w: %T", listen.ErrUnsupported, driverConn)
		}

		return nil
	})
	if err != nil {
		done()

		return nil, err
	}

	return listeningOn(own, func() {
		discard(conn) // it listens, and must not be used for anything else

		done()
	}), nil
}

// listening is a connection that nobody else uses until close.
type listening struct {
	exec  func(ctx context.Context, text string) error
	wait  func(context.Context) (channel, payload string, err error)
	close func()
}

func listeningOn(conn pgxConn, closed func()) *listening {
	return &listening{
		exec: func(ctx context.Context, text string) error {
			_, err := conn.Exec(ctx, text)

			return err
		},
		wait: func(ctx context.Context) (channel, payload string, err error) {
			n, err := conn.WaitForNotification(ctx)
			if err != nil {
				return "", "", err
			}

			if n == nil { // it went to a function of the user's, see naming
				return "", "", fmt.Errorf("%w: the connection's OnNotification is set", listen.ErrUnsupported)
			}

			return n.Channel, n.Payload, nil
		},
		close: closed,
	}
}

func (l *listening) Listen(ctx context.Context, channel string) error {
	err := l.exec(ctx, "LISTEN "+quoteIdentifier(channel))

	// It refuses, and is likely to for minutes, unless the error is about connections, what runs beside,
	// resources, operators, systems, or defects. Instead of a read-only server another may be reached.
	if sqlState(err) != "" && !hasState(err, "08", "40", "53", "55", "57", "58", "XX", codeReadOnlyTransaction) {
		err = fmt.Errorf("%w: %w", listen.ErrRefused, err)
	}

	return err
}

func (l *listening) Wait(ctx context.Context) (channel, payload string, err error) {
	return l.wait(ctx)
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
