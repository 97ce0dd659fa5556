package contract

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// Drivers around pgx that refuse what a relative of PostgreSQL refuses, by the text of the statement.
const (
	// LikeCitus refuses what isn't immutable in an UPDATE, system columns, and row locks of several locks.
	LikeCitus = "like citus"
	// LikeYugabyte refuses system columns, the timeline, and advisory locks.
	LikeYugabyte = "like yugabyte"
	// LikeCockroach refuses system columns, the timeline, notifications, how PostgreSQL stores a table, and a
	// recursive subquery.
	LikeCockroach = "like cockroach"
	// LikeAurora refuses the timeline, as Amazon Aurora does unless wal_level is logical.
	LikeAurora = "like aurora"
	// LikeLimitless refuses notifications and triggers, as Aurora Limitless does, and what LikeCitus refuses.
	LikeLimitless = "like limitless"
	// Poorest refuses all that, and passes over no row, and has no settings.
	Poorest = "poorest"
)

const (
	noCtid      = `\bctid\b`
	noTimeline  = `pg_walfile_name`
	noNotify    = `pg_notify|LISTEN`
	noAdvisory  = `pg_advisory`
	noStorage   = `USING heap|SET \(fillfactor`
	noSettings  = `set_config`
	noSkipping  = `SKIP LOCKED`
	noRecursion = `(?s)LATERAL \(\s*WITH RECURSIVE`
	noTogether  = `(?s)WITH ORDINALITY.*\bFOR (NO KEY )?(UPDATE|SHARE)`
	noTriggers  = `CREATE TRIGGER`
	noVolatile  = `(?s)^\s*UPDATE .*(clock_timestamp|set_config|pg_walfile_name)`
)

func init() {
	for name, refused := range map[string]string{
		LikeCitus:     noVolatile + "|" + noTogether,
		LikeAurora:    noTimeline,
		LikeLimitless: noVolatile + "|" + noTogether + "|" + noNotify + "|" + noTriggers,
		LikeYugabyte:  noCtid + "|" + noTimeline + "|" + noAdvisory,
		LikeCockroach: noCtid + "|" + noTimeline + "|" + noNotify + "|" + noStorage + "|" + noRecursion,
		Poorest: noVolatile + "|" + noCtid + "|" + noTimeline + "|" + noNotify + "|" + noAdvisory + "|" + noStorage + "|" + noRecursion + "|" + noSettings +
			"|" + noSkipping + "|" + noTogether,
	} {
		pattern, code := regexp.MustCompile(refused), "0A000"
		if name == LikeAurora {
			code = "55000"
		}

		sql.Register(name, wrapper{func(inner *stdlib.Conn) driver.Conn {
			return refusing{traced{inner, inner, inner, inner, inner}, pattern, code}
		}})
	}
}

type refusing struct {
	traced
	pattern *regexp.Regexp
	code    string
}

func (r refusing) refusal(text string) error {
	// A server looks into the body of a function when it runs.
	if r.pattern.MatchString(text) && !strings.HasPrefix(text, "CREATE OR REPLACE FUNCTION") {
		return &pgconn.PgError{Severity: "ERROR", Code: r.code, Message: "not supported here"}
	}

	return nil
}

func (r refusing) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	if err := r.refusal(text); err != nil {
		return nil, err
	}

	return r.traced.QueryContext(ctx, text, args)
}

func (r refusing) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	if err := r.refusal(text); err != nil {
		return nil, err
	}

	return r.traced.ExecContext(ctx, text, args)
}
