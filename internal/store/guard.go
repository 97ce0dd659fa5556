package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// sqlGuard proves, inside its caller's transaction, that generation $2 holds the lock $1, and keeps
// it so until that ends: the share lock conflicts with every transition. (FOR KEY SHARE doesn't,
// since transitions leave the key alone.)
const sqlGuard = `
SELECT l.generation
  FROM {table} AS l
 WHERE l.lock_id {=} $1
   AND l.generation {=} $2
   AND l.expires_at {>} {now}
   FOR SHARE`

// GuardSQL is sqlGuard for the Store's table. It sends nothing.
func (s *Store) GuardSQL() string {
	if last := s.shape.last.Load(); last != nil {
		return last.statements.guard
	}

	return render(s.table, form{}).guard
}

// Guard runs sqlGuard in a transaction, and reports whether the generation holds the lock. After an
// error the transaction can't go on.
func (s *Store) Guard(ctx context.Context, tx *sql.Tx, id string, generation int64) (bool, error) {
	text, args := s.GuardSQL(), []any{id, generation}

	// Within a transaction a pooler keeps the connection, so every driver may be given arguments.
	// But not every one tells the server that they are UTF-8.
	if s.native.Load() || isASCII(args) {
		args = s.arguments(args)
	} else {
		text, args = s.plain(text, args)
	}

	err := tx.QueryRowContext(ctx, text, args...).Scan(&generation)

	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	}

	return false, s.guardFailed(err)
}

// guardFailed takes the error of a guard. It notes whether a pooler lost a prepared statement, and adds
// to the error what the caller can do.
func (s *Store) guardFailed(err error) error {
	s.lostStatement(err, true)

	if stalePlan(err) {
		return fmt.Errorf("%w (the table was altered: repeat the transaction)", err)
	}

	return err
}
