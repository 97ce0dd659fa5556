package doctor

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
)

// patient is the database under examination, and what is known of it.
type patient struct {
	limits Limits
	// config is how the user connects, plain the same without prepared statements, which get lost behind a pooler.
	config, plain *pgx.ConnConfig
	conn          *pgx.Conn

	schema, name string
	// address is where it is. The rest is what [patient.admit] found.
	address, database, role string
	// table, history, inSchema and forRole are names as a statement has them, quoted where they must be.
	table, history, inSchema, forRole string
	version                           int    // as server_version_num
	product                           string // the server's own words
	standby                           bool
	super                             bool
	// seesAll: the role may see what other sessions do.
	seesAll bool
	// oid is that of the table, 0 if there is none.
	oid         uint32
	partitioned bool
	// owner: the role owns the table, or is a member of its owner.
	owner bool
	// owners: the table has the optional columns.
	owners bool
	// locked: another transaction has the whole table locked.
	locked bool
	// probed is what the library said of the table.
	probed *probed
	// managed: Citus manages the table, whose rows are on several servers. isPlain: Lockers speak the plain dialect.
	managed, isPlain bool
	// pool is how the connection reaches the server.
	pool pooling

	// first is the first look at the clocks, short are the leases that were about to end then.
	first reading
	short []lease
}

func newPatient(cfg Config) *patient {
	p := &patient{limits: cfg.Limits, config: cfg.Connect, plain: cfg.Connect.Copy(), schema: cfg.Schema, name: cfg.Table}
	p.plain.DefaultQueryExecMode = pgx.QueryExecModeExec
	p.table = p.schema + "." + p.name
	p.database, p.role = cfg.Connect.Database, cfg.Connect.User

	p.address = cfg.Connect.Host
	if !strings.HasPrefix(p.address, "/") {
		p.address = net.JoinHostPort(p.address, strconv.Itoa(int(cfg.Connect.Port)))
	}

	return p
}

// close closes the connection.
func (p *patient) close() {
	if p.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()

		_ = p.conn.Close(ctx) // it has nothing more to say
	}
}

// connected returns a connection that lives. A statement that was given up closes the one before.
func (p *patient) connected(ctx context.Context) (*pgx.Conn, error) {
	if p.conn != nil && !p.conn.IsClosed() {
		return p.conn, nil
	}

	conn, err := pgx.ConnectConfig(ctx, p.plain)
	if err == nil {
		p.conn = conn
	}

	return conn, err
}

// begin begins a transaction that can change nothing, waits for little, and finds PostgreSQL's own functions and
// operators alone. It changes nothing of the session, which may be another client's behind a pooler.
const begin = `BEGIN READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout = '500ms';
SET LOCAL statement_timeout = %d; SET LOCAL idle_in_transaction_session_timeout = 0`

// beginSince17 goes with it on a server that knows that timeout.
const beginSince17 = `; SET LOCAL transaction_timeout = 0`

// beginning is how a transaction begins. The server tells its version when a connection begins.
func (p *patient) beginning(conn *pgx.Conn) string {
	text := fmt.Sprintf(begin, (p.limits.Patience - time.Second).Milliseconds())

	major, _, _ := strings.Cut(conn.PgConn().ParameterStatus("server_version"), ".")
	if n, err := strconv.Atoi(major); err == nil && n >= 17 {
		text += beginSince17
	}

	return text
}

// read returns the rows of a statement, which has a transaction of its own.
func read[T any](ctx context.Context, p *patient, scan pgx.RowToFunc[T], text string, args ...any) ([]T, error) {
	conn, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}

	var found []T

	if _, err = conn.Exec(ctx, p.beginning(conn)); err == nil {
		rows, _ := conn.Query(ctx, text, args...) // its error is that of the rows
		found, err = pgx.CollectRows(rows, scan)
	}

	if _, rollbackErr := conn.Exec(ctx, "ROLLBACK"); err == nil {
		err = rollbackErr
	}

	return found, err
}

// readRows is read for a struct whose fields are the columns, in order.
func readRows[T any](ctx context.Context, p *patient, text string, args ...any) ([]T, error) {
	return read(ctx, p, pgx.RowToStructByPos[T], text, args...)
}

// readRow is readRows for a statement that has one row.
func readRow[T any](ctx context.Context, p *patient, text string, args ...any) (row T, err error) {
	rows, err := readRows[T](ctx, p, text, args...)
	if err == nil && len(rows) != 1 {
		err = fmt.Errorf("%d rows, want one", len(rows))
	}

	if err != nil {
		return row, err
	}

	return rows[0], nil
}

// readList is read for one column of text.
func readList(ctx context.Context, p *patient, text string, args ...any) ([]string, error) {
	return read(ctx, p, pgx.RowTo[string], text, args...)
}

// sqlAdmission says who and where the patient is. No privilege is needed for it.
const sqlAdmission = `
SELECT current_database()::text, current_user::text,
       quote_ident($1), quote_ident($1) || '.' || quote_ident($2), quote_ident($1) || '.' || quote_ident($3::text), quote_ident(current_user), current_setting('server_version_num')::int, version(),
       pg_is_in_recovery(),
       coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false),
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
       coalesce(c.oid, 0),
       coalesce(c.relkind = 'p', false), coalesce(pg_has_role(c.relowner, 'USAGE'), false),
       (SELECT count(*) FROM pg_attribute AS a
         WHERE a.attrelid = c.oid AND NOT a.attisdropped
           AND a.attname IN ('owner', 'acquired_at', 'contended_until')) = 3
  FROM (SELECT $1::text AS of_schema, $2::text AS of_table) AS given
  LEFT JOIN pg_namespace AS n ON n.nspname = given.of_schema::name
  LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = given.of_table::name
                         AND c.relkind NOT IN ('i', 'I', 'S', 'c', 't')`

// admit connects, and finds out what every check needs to know. What keeps the checks from running is a finding.
func (p *patient) admit(ctx context.Context, result *Check) error {
	within, cancel := context.WithTimeout(ctx, p.config.ConnectTimeout+p.limits.Patience)
	defer cancel()

	if _, err := p.connected(within); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		result.seen("no connection to %s", p.address)
		result.find(Error, "unreachable", "No connection to the database: "+oneLine(err.Error())+".",
			"No lock can be taken or renewed from here. Holders lose their locks when their leases end.",
			"-- Is the server up? Do host, port, user and password (PGPASSWORD, ~/.pgpass) fit?\n-- pg_isready -h HOST -p PORT")

		return nil
	}

	type admission struct {
		Database, Role          string
		Schema, Table, History  string
		ForRole                 string
		Version                 int
		Product                 string
		Standby, Super, SeesAll bool
		OID                     uint32
		Partitioned, Owner      bool
		HasAllColumns           bool
	}

	a, err := readRow[admission](within, p, sqlAdmission, p.schema, p.name, p.historyName())
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		if slow(err) {
			result.seen("%s doesn't answer", p.address)
			result.find(Error, "no-answer", "The first statement got no answer: "+message(err)+".",
				"The server hangs or is overloaded. Holders lose their locks if that lasts.", "-- Look at the server: its log, its load, its disk.")

			return nil
		}

		result.seen("%s refuses a transaction", p.address)
		result.find(Error, "no-transactions", "The first transaction failed: "+message(err)+".",
			"pglocker needs transactions, and PostgreSQL's catalogs. A pooler in statement mode refuses the first.",
			"pool_mode = transaction  -- or session, in the pooler's configuration")

		return nil
	}

	p.database, p.role, p.version, p.product = a.Database, a.Role, a.Version, a.Product
	p.inSchema, p.table, p.history, p.forRole = a.Schema, a.Table, a.History, a.ForRole
	p.standby, p.super, p.seesAll = a.Standby, a.Super, a.SeesAll
	p.oid, p.partitioned, p.owner, p.owners = a.OID, a.Partitioned, a.Owner, a.HasAllColumns

	if p.first, err = p.readClocks(within); err != nil {
		return ctxError(ctx)
	}

	if p.oid != 0 {
		p.short, _ = p.shortLeases(within) // without the privilege there is no second look
	}

	return ctxError(ctx)
}

// ctxError is the error of a context that has ended, or nil.
func ctxError(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	return nil
}

// library opens the database as programs do, and lends it with the configuration of the table.
func (p *patient) library(use func(db *sql.DB, cfg *pglocker.Config) error) error {
	db := stdlib.OpenDB(*p.config)
	db.SetMaxOpenConns(2)

	defer func() { _ = db.Close() }()

	return use(db, &pglocker.Config{Scheme: p.schema, Table: p.name})
}

// parts is a common table expression: the table and its partitions, by oid.
const parts = `WITH RECURSIVE part AS (
    SELECT $1::oid AS oid
     UNION ALL
    SELECT i.inhrelid FROM part JOIN pg_inherits AS i ON i.inhparent = part.oid)`

// quoteText quotes a string literal for a statement that is printed.
func quoteText(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// oneLine is a text without line breaks, and without a full stop at its end.
func oneLine(text string) string {
	return strings.TrimSuffix(strings.Join(strings.Fields(text), " "), ".")
}

// span is a time for people.
func span(d time.Duration) string {
	switch {
	case d >= time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	default:
		d = d.Round(10 * time.Microsecond)
	}

	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = text[:len(text)-len("0s")]
	}

	if strings.HasSuffix(text, "h0m") {
		text = text[:len(text)-len("0m")]
	}

	return text
}

// seconds is a number of seconds for people.
func seconds(s float64) string { return span(time.Duration(s * float64(time.Second))) }

// many is a number with its noun.
func many(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}

	return fmt.Sprintf("%d %ss", n, noun)
}
