package store

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// sqlTimeline is the floor, and NULL on a standby, which refuses the functions until it is promoted.
var sqlTimeline = qualified("SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN " + sqlFloor + " END AS floor")

// sqlNoFloor is the same without the functions.
const sqlNoFloor = "SELECT 0::bigint AS floor"

// hasTimeline reports whether the server can tell its timeline inside a statement. Relatives of
// PostgreSQL may lack the functions or refuse them. Tokens then have no floor, which is logged
// once.
func (s *Store) hasTimeline(ctx context.Context) (bool, error) {
	ask := func(text string) error {
		_, err := read(ctx, s, onPrimary(text), nil, scanOne[pgtype.Int8])

		return err
	}

	err := ask(sqlTimeline)

	// Any other refusal counts if the functions are its cause.
	if code := sqlState(err); code != "" && !noTimeline(err) && !ofTheMoment(err) {
		if controlErr := ask(sqlNoFloor); controlErr != nil {
			return false, err
		}

		if again := ask(sqlTimeline); sqlState(again) != code {
			return again == nil, again
		}
	} else if !noTimeline(err) {
		return err == nil, err
	}

	if !s.shape.floorless.Swap(true) {
		s.log.Warn("pglocker: this server doesn't tell its timeline, so tokens may repeat after a failover that loses commits",
			"table", s.table.String(), "error", err)
	}

	return false, nil
}

// noTimeline reports whether the server lacks the functions, or this role may not call them. Amazon
// Aurora raises 55000 on the writer unless wal_level is logical.
func noTimeline(err error) bool {
	return hasState(err, codeUndefinedFunction, codeInsufficientPriv, codeNotInState) ||
		hasState(err, "0A") && !strings.Contains(err.Error(), "cached plan")
}

// ofTheMoment reports whether an error may be due to other statements, the connection, or a lack of
// room.
func ofTheMoment(err error) bool {
	return hasState(err, "08", "25", "26", "28", "40", "42P05", "53", "55P03", "57", "58")
}

// outdated reports whether a statement was refused because the table or the server changed since
// they were looked at: after a failover of a relative of PostgreSQL, for example.
func outdated(err error) bool { return sqlState(err) == codeUndefinedColumn || noTimeline(err) }
