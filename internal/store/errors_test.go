package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// unsent is an error of pgconn's of which it says that nothing went out.
type unsent struct{ error }

func (unsent) SafeToRetry() bool { return true }

func TestJudge(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name      string
		err       error
		trust     bool
		want      outcome
		transient bool
	}{
		{"pgx says that nothing went out", unsent{io.EOF}, true, nothingSent, true},
		{"bad connection, of a driver that keeps to the rule", driver.ErrBadConn, true, nothingSent, true},
		{"bad connection, of one that doesn't", driver.ErrBadConn, false, unknown, true},
		{"the connection broke", io.ErrUnexpectedEOF, true, unknown, true},
		{"the network", &net.OpError{Op: "read", Err: errors.New("reset")}, true, unknown, true},
		{"the context ended", context.DeadlineExceeded, true, unknown, true},
		{"something else", errors.New("?"), true, unknown, true},
		{"the user closed the pool", errors.New("closed pool"), true, unknown, false},
		{"a server says so of another", &pgconn.PgError{Code: "53300", Message: "too many clients, closed pool"}, true, refused, true},
	} {
		if got := judge(test.err, test.trust); got != test.want {
			t.Errorf("%s: judged %d, want %d", test.name, got, test.want)
		}

		if got := Transient(test.err); got != test.transient {
			t.Errorf("%s: transient %t, want %t", test.name, got, test.transient)
		}
	}
}

// TestJudgeSQLState: an error of the server means that it rolled back, unless it
// says that the commit may have happened before.
func TestJudgeSQLState(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		code      string
		want      outcome
		transient bool
	}{
		{"40001", refused, true},  // serialization failure
		{"40P01", refused, true},  // deadlock
		{"40003", unknown, true},  // statement completion unknown
		{"08006", unknown, true},  // connection failure, a pooler's
		{"08P01", unknown, true},  // protocol violation, a pooler's
		{"57P01", unknown, true},  // admin shutdown
		{"57P02", unknown, true},  // crash shutdown
		{"58030", unknown, true},  // I/O error
		{"53100", refused, true},  // disk full
		{"53300", refused, true},  // too many connections
		{"57014", refused, true},  // statement_timeout, or cancelled by somebody: not while it waits for a standby
		{"55P03", refused, true},  // lock_timeout
		{"57P03", unknown, true},  // starting up
		{"42P01", refused, false}, // no such table
		{"42501", refused, false}, // no privilege
		{"25006", refused, true},  // read-only: another connection may not be
		{"25P02", refused, true},  // somebody left a failed transaction
		{"25P03", unknown, true},  // idle_in_transaction_session_timeout
		{"25P04", unknown, true},  // transaction_timeout
		{"28P01", refused, false}, // wrong password
		{"3D000", refused, false}, // no such database
		{"XX001", refused, false}, // data corrupted: this row's
		{"0A000", refused, false}, // not supported
		{"22008", refused, false}, // timestamp out of range
		{"23505", refused, false}, // unique violation
		{"P0001", refused, false}, // raised by a trigger
		{"XX000", unknown, true},  // internal error: a pooler's that lost its connection
	} {
		for _, err := range []error{
			&pgconn.PgError{Code: test.code},
			fmt.Errorf("wrapped: %w", &pq.Error{Code: pqerror.Code(test.code)}),
		} {
			if got := judge(err, false); got != test.want {
				t.Errorf("%s as %T: judged %d, want %d", test.code, err, got, test.want)
			}

			if got := Transient(err); got != test.transient {
				t.Errorf("%s as %T: transient %t, want %t", test.code, err, got, test.transient)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()

	s := &Store{table: Table{Schema: "s", Name: "t"}}

	for code, want := range map[string]error{
		"42P01": ErrTableNotFound,
		"42501": ErrPermissionDenied,
		"25006": ErrReadOnly,
		"22008": ErrInvalidTTL,
	} {
		for _, err := range []error{&pgconn.PgError{Code: code}, &pq.Error{Code: pqerror.Code(code)}} {
			if got := s.explain(err); !errors.Is(got, want) || !errors.Is(got, err) {
				t.Errorf("%s as %T: %v, want it to match %v and itself", code, err, got, want)
			}
		}
	}

	if other := errors.New("?"); s.explain(other) != other { //nolint:errorlint // the very same
		t.Error("an error without a name of its own is changed")
	}
}

func TestContextError(t *testing.T) {
	t.Parallel()

	cause := errors.New("the caller's own")

	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)

	if err := ended(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
		t.Errorf("%v, want it to match context.Canceled and the cause", err)
	}

	ctx, cancelTimeout := context.WithTimeout(context.Background(), -1)
	defer cancelTimeout()

	if err := ctxError(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want context.DeadlineExceeded", err)
	}
}

// TestWithContext: a statement that the server cancelled because ctx ended matches
// the end of ctx, and is still the server's refusal.
func TestWithContext(t *testing.T) {
	t.Parallel()

	cancelled := &pq.Error{Code: "57014"}

	ctx, cancel := context.WithCancel(context.Background())
	if err := withContext(ctx, cancelled); errors.Is(err, context.Canceled) {
		t.Errorf("%v, although ctx has not ended", err)
	}

	cancel()

	err := withContext(ctx, cancelled)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, cancelled) || judge(err, false) != refused {
		t.Errorf("%v, want it to match context.Canceled and the server's error", err)
	}

	if err := withContext(ctx, nil); err != nil {
		t.Error(err)
	}

	// A dial that has the deadline of its context can fail before the context ends.
	timeout := &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	if err := withContext(late{context.Background()}, timeout); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, timeout) {
		t.Errorf("%v, want it to match context.DeadlineExceeded and the network's error", err)
	}
}

// late is a context whose deadline has passed and whose timer has not fired yet.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-time.Nanosecond), true }
