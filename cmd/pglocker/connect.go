package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/spf13/pflag"

	"github.com/ismurov/pglocker"
)

const connectionHelp = `It connects as psql does: by -d, a URL or a conninfo string, and by PGHOST, PGPORT, PGUSER,
PGDATABASE, PGSERVICE, PGTARGETSESSIONATTRS and most other variables of libpq. Passwords come
from ~/.pgpass, PGPASSFILE or PGPASSWORD; it never asks for one. Without connect_timeout it
gives up on a server after 10 seconds. It refuses what it can't obey: PGHOSTADDR, PGREQUIREPEER,
PGSSLCRL, PGSSLCRLDIR, PGSSLMINPROTOCOLVERSION, PGSSLMAXPROTOCOLVERSION and
PGGSSENCMODE=require. PGLOCKER_DSN, PGLOCKER_SCHEMA and so on set its own flags.`

// connectTimeout is for a server that doesn't answer, where the user sets none.
const connectTimeout = 10 * time.Second

// Bounds of [connection.patience].
const (
	minPatience = 5 * time.Second
	maxPatience = 30 * time.Second
)

// connection says where the locks are.
type connection struct {
	dsn, schema, table, owner string
	// patience is how long a last request of a command may take: the connect timeout, once the connection string is
	// parsed, but within bounds that suit a statement.
	patience time.Duration
}

func (c *connection) addFlags(flags *pflag.FlagSet) {
	flags.StringVarP(&c.dsn, "dsn", "d", "", "the `database`: a URL, a conninfo string, or its name (default: by PGHOST and so on)")
	flags.StringVar(&c.schema, "schema", pglocker.DefaultScheme, "`schema` of the table")
	flags.StringVar(&c.table, "table", pglocker.DefaultTable, "`table` of the locks")
	flags.StringVar(&c.owner, "owner", "", "`name` under which others see this command (default: host name and process id)")
}

// config is where the locks are, and under which name the command holds them.
func (c *connection) config(log *slog.Logger) *pglocker.Config {
	return &pglocker.Config{Scheme: c.schema, Table: c.table, Owner: c.owner, Logger: log}
}

// open connects to the database, for the subcommand of that name. The caller closes it.
func (a *app) open(ctx context.Context, command string) (*sql.DB, error) {
	config, err := a.connection.parse(command)
	if err != nil {
		return nil, err
	}

	// A connection that has never been used, which is so by the zero time, needs no ping.
	db := stdlib.OpenDB(*config, stdlib.OptionShouldPing(func(_ context.Context, p stdlib.ShouldPingParams) bool {
		return p.IdleDuration > time.Second && p.IdleDuration < math.MaxInt64
	}))

	conn, err := db.Conn(ctx)
	if err == nil {
		err = conn.Close() // it goes to the pool
	}

	if err != nil {
		_ = db.Close()

		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}

		return nil, unavailableError{describe(err)}
	}

	return db, nil
}

// openLocker connects to the database and makes a Locker. close closes both, and releases what is still held.
func (a *app) openLocker(ctx context.Context, command string) (locker *pglocker.Locker, db *sql.DB, closeAll func(), err error) {
	return a.openLockerThatTells(ctx, command, a.logger())
}

// openLockerThatTells is openLocker with a log of its own.
func (a *app) openLockerThatTells(
	ctx context.Context, command string, log *slog.Logger,
) (locker *pglocker.Locker, db *sql.DB, closeAll func(), err error) {
	db, err = a.open(ctx, command)
	if err != nil {
		return nil, nil, nil, err
	}

	locker, err = pglocker.New(db, a.connection.config(log))
	if err != nil {
		_ = db.Close()

		return nil, nil, nil, err
	}

	return locker, db, func() {
		ctx, cancel := a.lastly(ctx)
		defer cancel()

		_ = locker.Close(ctx) // the holder of a lock has unlocked it before, and knows more
		_ = db.Close()
	}, nil
}

// lastly is a context for a last request after the end of ctx.
func (a *app) lastly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), a.connection.patience)
}

// parse reads the connection string and the variables of libpq.
func (c *connection) parse(command string) (*pgx.ConnConfig, error) {
	dsn := c.dsn
	if dsn != "" && !strings.ContainsAny(dsn, "=:/") {
		dsn = "dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(dsn) + "'" // as with psql
	}

	for _, name := range unreadVariables {
		if os.Getenv(name) != "" {
			return nil, usagef("the environment variable %s is set, which pglocker can't obey: unset it", name)
		}
	}

	if os.Getenv("PGGSSENCMODE") == "require" {
		return nil, usagef("PGGSSENCMODE=require: pglocker can't encrypt by GSSAPI, use PGSSLMODE")
	}

	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, usageError{describe(err), ""}
	}

	if err := dropUnread(config.RuntimeParams); err != nil {
		return nil, err
	}

	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}

	c.patience = min(max(config.ConnectTimeout, minPatience), maxPatience)

	goOnward(config)

	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "pglocker " + command
	}

	config.RuntimeParams["client_encoding"] = "UTF8"

	// A statement that is sent once or twice needs no name, which costs a round trip. In this mode the library
	// sends each in one.
	if config.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		config.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	}

	return config, nil
}

// Variables and keywords of libpq that pgx doesn't know. To ignore those of unread would lead to another server, or
// to a connection that is less safe than the user thinks. The ignored ones change nothing that matters here.
var (
	unreadVariables = []string{
		"PGHOSTADDR", "PGREQUIREPEER", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION",
	}

	unreadKeywords = []string{
		"hostaddr", "requirepeer", "sslcrl", "sslcrldir", "ssl_min_protocol_version", "ssl_max_protocol_version",
		"replication", "scram_client_key", "scram_server_key", "oauth_issuer", "oauth_client_id", "oauth_client_secret",
		"oauth_scope",
	}

	ignoredKeywords = []string{
		"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "gssencmode",
		"gsslib", "gssdelegation", "sslcompression", "load_balance_hosts", "sslkeylogfile",
	}
)

// dropUnread removes the keywords that pgx would take for settings of the server.
func dropUnread(params map[string]string) error {
	for _, name := range unreadKeywords {
		if params[name] != "" {
			return usagef("the connection string has the keyword %s, which pglocker can't obey: leave it out", name)
		}

		delete(params, name)
	}

	if params["gssencmode"] == "require" {
		return usagef("gssencmode=require: pglocker can't encrypt by GSSAPI, use sslmode")
	}

	for _, name := range ignoredKeywords {
		delete(params, name)
	}

	if name := params["fallback_application_name"]; params["application_name"] == "" {
		params["application_name"] = name
	}

	delete(params, "fallback_application_name")

	return nil
}

// describe says why a connection failed. It never quotes the connection string, which may hold a
// password.
func describe(err error) error {
	if parse, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		text := parse.Error()
		if i := strings.LastIndex(text, "`: "); i >= 0 {
			text = text[i+len("`: "):]
		}

		if parse.ConnString != "" && strings.Contains(text, parse.ConnString) {
			text = "it is malformed"
		}

		return fmt.Errorf("can't read the connection string: %s", text)
	}

	return unreachable{err}
}

// unreachable is why a connection failed, in one line.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

func (u unreachable) Error() string {
	connect, ok := errors.AsType[*pgconn.ConnectError](u.error)
	if !ok {
		return "can't connect to the database: " + u.error.Error()
	}

	var causes []string

	for line := range strings.Lines(connect.Unwrap().Error()) {
		line = strings.NewReplacer("dial error: ", "", "server error: ", "").Replace(strings.TrimSpace(line))

		// With sslmode=prefer each server is tried twice.
		if !slices.Contains(causes, line) && !strings.HasSuffix(line, "server refused TLS connection") {
			causes = append(causes, line)
		}
	}

	if len(causes) == 0 {
		causes = []string{"the server refuses TLS"}
	}

	return fmt.Sprintf("can't connect to the database %q as %q: %s",
		cmp.Or(connect.Config.Database, connect.Config.User), connect.Config.User, strings.Join(causes, "; "))
}
