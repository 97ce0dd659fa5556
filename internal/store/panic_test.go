package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// hooked are connections of lib/pq under which a test has a hook.
type hooked struct {
	driver.Connector
	query func(text string) error
}

func (h hooked) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := h.Connector.Connect(ctx)

	return hookedConn{conn, h}, err
}

func (h hooked) Driver() driver.Driver { return h }

func (h hooked) Open(string) (driver.Conn, error) { return nil, errors.ErrUnsupported }

type hookedConn struct {
	driver.Conn
	hooked
}

func (c hookedConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.query(text); err != nil {
		return nil, err
	}

	return c.Conn.(driver.QueryerContext).QueryContext(ctx, text, args)
}

func (c hookedConn) Driver() driver.Driver { return c.hooked }

// openHooked opens a handle with a hook on a new database.
func openHooked(t *testing.T, query func(text string) error) *sql.DB {
	t.Helper()

	url := newDatabase(t).String()
	if err := store.Migrate(t.Context(), contract.Open(t, "pgx", url), table, nil); err != nil {
		t.Fatal(err)
	}

	connector, err := pq.NewConnector(url)
	if err != nil {
		t.Fatal(err)
	}

	db := sql.OpenDB(hooked{connector, query})
	t.Cleanup(func() { _ = db.Close() }) // nothing was left to be said on it

	return db
}

// TestDriverPanics: a driver that panics under a statement, or ends its goroutine, leaves
// nobody waiting. All whose requests were in it are told that the outcome isn't known, and
// what comes after is served.
func TestDriverPanics(t *testing.T) {
	t.Parallel()

	for name, leave := range map[string]func(){
		"panic":  func() { panic("out of range") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var breaks atomic.Int64

			db := openHooked(t, func(string) error {
				if breaks.Add(-1) >= 0 {
					leave()
				}

				return nil
			})
			s := store.New(db, table, nil)

			const callers = 64

			for i := range callers {
				if _, err := s.Create(t.Context(), fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
			}

			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // else it would hang where it should fail
			defer cancel()

			breaks.Store(2)

			var (
				group  sync.WaitGroup
				broken atomic.Int64
			)

			for i := range callers {
				group.Go(func() {
					_, err := s.Acquire(ctx, fmt.Sprint(i), fmt.Sprint("me ", i), ttl, margin)

					switch {
					case err == nil:
					case ctx.Err() != nil:
						t.Errorf("%d: hangs: %v", i, err)
					default:
						broken.Add(1)
					}
				})
			}

			group.Wait()

			if n := breaks.Load(); n >= 0 {
				t.Fatalf("it broke %d times fewer than it should", n+1)
			}

			// Each was settled: asking again found what there was.
			if n := broken.Load(); n != 0 {
				t.Errorf("%d of %d callers failed", n, callers)
			}

			s.Wait()
		})
	}
}

// TestDriverPanicsOnce: where the driver panics after a request was sent, the caller is told that
// the outcome is unknown.
func TestDriverPanicsOnce(t *testing.T) {
	t.Parallel()

	var breaks atomic.Bool

	db := openHooked(t, func(string) error {
		if breaks.Load() {
			panic("out of range")
		}

		return nil
	})
	s := store.New(db, table, nil)

	if _, err := s.Create(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}

	breaks.Store(true)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // else it would hang where it should fail
	defer cancel()

	if res, err := s.Acquire(ctx, "a", "me", ttl, margin); !errors.Is(err, store.ErrUnknownOutcome) || ctx.Err() != nil {
		t.Errorf("Acquire: %+v, %v, want ErrUnknownOutcome", res, err)
	}

	breaks.Store(false)

	if res, err := s.Acquire(t.Context(), "a", "me", ttl, margin); err != nil || res.Verdict != store.Granted {
		t.Errorf("Acquire afterwards: %+v, %v", res, err)
	}
}

// silent is an error that says nothing in a way that programs can read.
type silent struct{ error }

// silentConn reports errors as text alone.
type silentDriver struct{ driver.Connector }

func (d silentDriver) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := d.Connector.Connect(ctx)

	return silentConn{conn}, err
}

func (d silentDriver) Driver() driver.Driver            { return d }
func (d silentDriver) Open(string) (driver.Conn, error) { return nil, errors.ErrUnsupported }

type silentConn struct{ driver.Conn }

func (c silentConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, text, args)

	if state, ok := err.(*pq.Error); ok { //nolint:errorlint // it comes as it is
		err = silent{errors.New(state.Message)}
	}

	return rows, err
}

// TestDriverWithoutSQLState: such a driver is named on the first use.
func TestDriverWithoutSQLState(t *testing.T) {
	t.Parallel()

	url := newDatabase(t).String()
	if err := store.Migrate(t.Context(), contract.Open(t, "pgx", url), table, nil); err != nil {
		t.Fatal(err)
	}

	connector, err := pq.NewConnector(url)
	if err != nil {
		t.Fatal(err)
	}

	db := sql.OpenDB(silentDriver{connector})
	t.Cleanup(func() { _ = db.Close() }) // nothing was left to be said on it

	s := store.New(db, table, nil)

	for range 2 {
		_, err := s.Acquire(t.Context(), "a", "me", ttl, margin)
		if !errors.Is(err, store.ErrUnsupportedDriver) || store.Transient(err) {
			t.Errorf("Acquire: %v, want ErrUnsupportedDriver", err)
		}
	}
}

// TestPanicKeepsNoPlace: a driver that panics, or ends its goroutine, takes no place from what
// comes after, however few there are.
func TestPanicKeepsNoPlace(t *testing.T) {
	t.Parallel()

	for name, leave := range map[string]func(){
		"panic":  func() { panic("out of range") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var breaks atomic.Int64

			db := openHooked(t, func(string) error {
				if breaks.Add(-1) >= 0 {
					leave()
				}

				return nil
			})
			s := store.New(db, table, nil).Beside(db, 1)

			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // else it would hang where it should fail
			defer cancel()

			if _, err := s.Create(ctx, "a"); err != nil {
				t.Fatal(err)
			}

			breaks.Store(3)

			for breaks.Load() > 0 {
				if _, err := s.Get(ctx, "a"); err != nil && ctx.Err() != nil {
					t.Fatalf("a request behind one that the driver left: %v", err)
				}
			}

			if _, err := s.Acquire(ctx, "a", "me", time.Minute, 0); err != nil {
				t.Errorf("a request afterwards: %v", err)
			}
		})
	}
}
