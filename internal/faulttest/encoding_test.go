package faulttest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// newEncoded makes an empty database in another encoding than UTF8, and returns its URL.
func newEncoded(t *testing.T, encoding string) *url.URL {
	t.Helper()

	u, err := url.Parse(contract.NewDatabase(t))
	contract.Must(t, err)

	admin := contract.Open(t, "pgx", u.String())
	name := "pglocker_test_" + strings.ToLower(encoding+rand.Text())
	contract.Exec(t, admin, fmt.Sprintf(
		"CREATE DATABASE %s ENCODING '%s' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", name, encoding))
	t.Cleanup(func() {
		if _, err := admin.ExecContext(context.Background(), "DROP DATABASE "+name); err != nil {
			t.Error(err)
		}
	})

	u.Path = "/" + name

	return u
}

// TestEncodings: whatever the encoding of the database, an id is the same lock for all
// drivers, or one refuses it by name.
func TestEncodings(t *testing.T) {
	t.Parallel()

	for encoding, id := range map[string]string{"LATIN1": "größe", "EUC_JP": "ロック", "SQL_ASCII": "größe ロック"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()

			plain := newEncoded(t, encoding)
			told := *plain
			query := told.Query()
			query.Set("client_encoding", "UTF8")
			told.RawQuery = query.Encode()

			type way struct {
				name    string
				db      *sql.DB
				locker  *pglocker.Locker
				refuses bool
			}

			open := func(name, driver, url string, refuses bool) way {
				db := contract.Open(t, driver, url)
				locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
				contract.Must(t, err)
				t.Cleanup(func() { contract.CloseLocker(t, locker) })

				return way{name, db, locker, refuses}
			}

			ways := []way{
				open("lib/pq", "postgres", plain.String(), false),
				open("pgx, told", "pgx", told.String(), false),
				open("pgx", "pgx", plain.String(), encoding != "SQL_ASCII"),
				open("around pgx", contract.Traced, plain.String(), false),
				open("around lib/pq", contract.TracedPq, plain.String(), false),
			}

			// Each takes it alone, in a batch and by waiting, and meanwhile nobody else can.
			for _, holder := range ways {
				if holder.refuses {
					_, err := holder.locker.AcquireLock(t.Context(), id, time.Minute)
					if !errors.Is(err, pglocker.ErrUnsupportedEncoding) || !strings.Contains(err.Error(), "client_encoding=UTF8") {
						t.Errorf("%s: AcquireLock: %v, want ErrUnsupportedEncoding and what to do", holder.name, err)
					}

					lock, err := holder.locker.TryLock(t.Context(), "ASCII", time.Minute)
					contract.Must(t, err)
					contract.Must(t, lock.Unlock(t.Context()))

					continue
				}

				lock, err := holder.locker.Lock(t.Context(), id, time.Minute)
				if err != nil {
					t.Errorf("%s: %v", holder.name, err)

					continue
				}

				for _, other := range ways {
					_, err := other.locker.AcquireLock(t.Context(), id, time.Minute)
					if want := pglocker.ErrAlreadyLocked; !other.refuses && !errors.Is(err, want) {
						t.Errorf("%s beside %s: AcquireLock: %v, want ErrAlreadyLocked", other.name, holder.name, err)
					}
				}

				// A transaction of pgx that isn't told would look for another lock.
				if err := guardOver(t, lock, told.String()); err != nil {
					t.Errorf("%s: GuardPgx: %v", holder.name, err)
				}

				if err := guardOver(t, lock, plain.String()); encoding != "SQL_ASCII" && !errors.Is(err, pglocker.ErrUnsupportedEncoding) {
					t.Errorf("%s: GuardPgx: %v, want ErrUnsupportedEncoding", holder.name, err)
				}

				// One of database/sql isn't asked what it is told.
				for _, way := range ways {
					if err := guardIn(t, lock, way.db); err != nil {
						t.Errorf("%s: in a transaction of %s: %v", holder.name, way.name, err)
					}
				}

				contract.Must(t, lock.Unlock(t.Context()))
			}
		})
	}
}

// guardOver guards a transaction of a connection to that URL.
func guardOver(t *testing.T, lock *pglocker.Lock, url string) error {
	t.Helper()

	conn, err := pgx.Connect(t.Context(), url)
	contract.Must(t, err)

	defer func() { contract.Must(t, conn.Close(t.Context())) }()

	return pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error { return lock.GuardPgx(t.Context(), tx) })
}

// guardIn guards transactions of a handle, as its own and as those of a library.
func guardIn(t *testing.T, lock *pglocker.Lock, db *sql.DB) error {
	t.Helper()

	tx, err := db.BeginTx(t.Context(), nil)
	contract.Must(t, err)

	defer func() { contract.Must(t, tx.Rollback()) }()

	return errors.Join(lock.Guard(t.Context(), tx), lock.GuardTx(t.Context(), inLibrary{tx}))
}

// inLibrary doesn't show the transaction that it has.
type inLibrary struct{ tx *sql.Tx }

func (l inLibrary) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return l.tx.QueryRowContext(ctx, query, args...)
}

// TestEncodingLacksACharacter: an id that the database can't store is refused by name.
func TestEncodingLacksACharacter(t *testing.T) {
	t.Parallel()

	u := newEncoded(t, "LATIN1")

	for _, driver := range []string{"postgres", contract.Traced, contract.TracedPq} {
		locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, u.String()), &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		if _, err := locker.AcquireLock(t.Context(), "ロック", time.Minute); !errors.Is(err, pglocker.ErrUnsupportedEncoding) {
			t.Errorf("%s: %v, want ErrUnsupportedEncoding", driver, err)
		}
	}
}

// TestEncodingInABatch: an id that can't be told costs its own request.
func TestEncodingInABatch(t *testing.T) {
	t.Parallel()

	u := newEncoded(t, "LATIN1")
	locker := contract.NewLocker(t, "pgx", u.String())

	const callers = 32

	errs := make(chan error, callers)

	for i := range callers {
		go func() {
			id := fmt.Sprint("lock ", i)
			if i%8 == 7 {
				id += "ß"
			}

			_, err := locker.AcquireLock(t.Context(), id, time.Minute)
			if i%8 == 7 && errors.Is(err, pglocker.ErrUnsupportedEncoding) {
				err = nil
			} else if i%8 == 7 {
				err = fmt.Errorf("%s: %v, want ErrUnsupportedEncoding", id, err)
			}

			errs <- err
		}()
	}

	for range callers {
		if err := contract.Receive(t, "a caller returns", errs); err != nil {
			t.Error(err)
		}
	}
}
