package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// pooling is how a connection reaches the server.
type pooling string

const (
	direct            pooling = "direct"
	sessionPooled     pooling = "through a pooler in session mode"
	transactionPooled pooling = "through a pooler in transaction mode"
)

// checkConnection finds out whether there is a pooler, and its mode. The admission has found one in statement mode.
func checkConnection(ctx context.Context, p *patient, result *Check) error {
	if err := p.findPool(ctx); err != nil {
		return err
	}

	result.seen("%s@%s on %s, %s, %s", p.role, p.database, p.address, p.pool, span(p.first.trip))

	if p.config.TLSConfig == nil && !strings.HasPrefix(p.config.Host, "/") && !loopback(p.config.Host) {
		result.note("The connection isn't encrypted (sslmode).")
	}

	return nil
}

func loopback(host string) bool {
	return host == "localhost" || strings.HasPrefix(host, "127.") || host == "::1"
}

// sqlBackend is the process of the server that serves a statement.
const sqlBackend = "SELECT pg_catalog.pg_backend_pid()"

// rounds is how often the search for a pooler in transaction mode looks. Its other clients disturb it.
const rounds = 8

// findPool goes by process numbers. A server tells the number of the process that serves a connection when it
// begins; a pooler tells one of its own. In transaction mode the process changes under a connection, or is
// shared by two at once. Settings of the session would show the same, and be left to other clients.
func (p *patient) findPool(ctx context.Context) error {
	conn, err := p.connected(ctx)
	if err != nil {
		return err
	}

	var own uint32
	if err := conn.QueryRow(ctx, sqlBackend).Scan(&own); err != nil {
		return err
	}

	if own == conn.PgConn().PID() {
		p.pool = direct

		return nil
	}

	p.pool = sessionPooled

	other, err := pgx.ConnectConfig(ctx, p.plain)
	if err != nil {
		return err
	}
	defer func() { _ = other.Close(ctx) }()

	for range rounds {
		theirs, mine, err := beside(ctx, other, conn)
		if err != nil {
			return err
		}

		if theirs == own || mine != own {
			p.pool = transactionPooled

			return nil
		}
	}

	return nil
}

// beside is which processes serve two connections while the first has a transaction open.
func beside(ctx context.Context, first, second *pgx.Conn) (a, b uint32, err error) {
	tx, err := first.Begin(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = tx.Rollback(ctx) }()

	err = tx.QueryRow(ctx, sqlBackend).Scan(&a)
	if err == nil {
		err = second.QueryRow(ctx, sqlBackend).Scan(&b)
	}

	return a, b, err
}

// hearWithin is how long a notification may take.
const hearWithin = 2 * time.Second

// checkNotifications sends a notification on a channel of its own, and waits for it.
func checkNotifications(ctx context.Context, p *patient, result *Check) error {
	const polls = "Waiters poll instead: a release reaches them up to 0.4 s late. Nothing else changes."

	if p.standby {
		result.skip("a standby takes no LISTEN")

		return nil
	}

	if p.isPlain {
		result.skip("the plain dialect has none")

		return nil
	}

	if p.pool == transactionPooled {
		result.seen("LISTEN isn't heard through a pooler in transaction mode")
		result.find(Warning, "not-notified", "A pooler in transaction mode gives a session's notifications to another client.",
			polls, "-- Give your Lockers a handle that goes past the pooler: Config.RenewDB, with two connections.")

		return nil
	}

	listener, err := pgx.ConnectConfig(ctx, p.plain)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close(ctx) }()

	channel := "pglocker_doctor_" + strings.ToLower(rand.Text())

	if _, err := listener.Exec(ctx, "LISTEN "+channel); err != nil {
		result.seen("LISTEN is refused")
		result.find(Warning, "not-notified", "The server refuses LISTEN: "+message(err)+".", polls, "-- Nothing: this server has no LISTEN.")

		return nil
	}

	conn, err := p.connected(ctx)
	if err != nil {
		return err
	}

	// The commit of a notification would wait for a synchronous standby that is missing.
	sent := time.Now()

	if _, err := conn.Exec(ctx, `SELECT pg_catalog.set_config('synchronous_commit', 'off', true), pg_catalog.pg_notify($1::pg_catalog.text, '')`, channel); err != nil {
		if slow(err) {
			return err
		}

		result.seen("pg_notify is refused")
		result.find(Warning, "not-notified", "The server refuses pg_notify: "+message(err)+".", polls,
			fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO %s;", p.forRole))

		return nil
	}

	hearing, cancel := context.WithTimeout(ctx, hearWithin)
	defer cancel()

	if _, err := listener.WaitForNotification(hearing); err != nil {
		if !errors.Is(err, context.DeadlineExceeded) && !slow(err) {
			return err
		}

		result.seen("a notification was sent, and not heard within %s", hearWithin)
		result.find(Warning, "not-notified", "A notification was sent over one connection, and not heard over another.", polls,
			"-- Is a pooler or a proxy between? Give your Lockers a handle that goes past it: Config.RenewDB.")

		return nil
	}

	result.seen("LISTEN is heard, after %s", span(time.Since(sent)))

	return nil
}
