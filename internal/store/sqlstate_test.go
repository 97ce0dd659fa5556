package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// byField reports as bun's pgdriver does.
type byField map[byte]string

func (e byField) Error() string          { return e['S'] + ": " + e['M'] }
func (e byField) Field(name byte) string { return e[name] }

// byMethod reports the SQLSTATE alone.
type byMethod string

func (e byMethod) Error() string    { return "refused" }
func (e byMethod) SQLState() string { return string(e) }

type code string

// byCode has its fields like lib/pq, without a method.
type byCode struct {
	Severity string
	Code     code
	Message  string
}

func (e *byCode) Error() string { return e.Message }

// byName has a field of that name.
type byName struct{ SQLState string }

func (e byName) Error() string { return "refused" }

// opaque hides an error from errors.Unwrap.
type opaque struct {
	Op  string
	Err error
}

func (e *opaque) Error() string { return e.Op + " failed" }

// causal hides it behind the method of older wrappers.
type causal struct{ cause error }

func (e causal) Error() string { return "failed" }
func (e causal) Cause() error  { return e.cause }

// TestSQLStateOfAnyDriver: a driver's way to report a SQLSTATE makes no difference.
func TestSQLStateOfAnyDriver(t *testing.T) {
	t.Parallel()

	for _, state := range []struct {
		severity, code string
		want           outcome
	}{
		{"ERROR", "40001", refused},
		{"ERROR", "25006", refused},
		{"ERROR", "XX000", unknown},
		{"FATAL", "53200", unknown},
		{"PANIC", "53100", unknown},
	} {
		errs := []error{
			&pgconn.PgError{Severity: "?", SeverityUnlocalized: state.severity, Code: state.code},
			&pgconn.PgError{Severity: state.severity, Code: state.code},
			&pq.Error{Severity: state.severity, Code: pqerror.Code(state.code)},
			byField{'S': state.severity, 'C': state.code, 'M': "refused"},
			byField{'S': "?", 'V': state.severity, 'C': state.code, 'M': "refused"},
			&byCode{state.severity, code(state.code), "refused"},
		}

		if state.severity == "ERROR" {
			errs = append(errs, byMethod(state.code), byName{state.code})
		}

		for _, err := range errs {
			for _, wrapped := range []error{
				err, fmt.Errorf("wrapped: %w", err), errors.Join(errors.New("another"), err), &opaque{"query", err},
				causal{err},
				&opaque{"exec", causal{fmt.Errorf("%w: %w", errors.New("another"), err)}},
			} {
				if got := sqlState(wrapped); got != state.code {
					t.Errorf("SQLSTATE of %T in %T is %q, want %q", err, wrapped, got, state.code)
				}

				if got := judge(wrapped, true); got != state.want {
					t.Errorf("%s %s as %T in %T: judged %d, want %d", state.severity, state.code, err, wrapped, got, state.want)
				}
			}
		}
	}

	for _, err := range []error{
		nil, errors.New("40001"), &byCode{Code: "EPIPE"}, &byCode{Code: "4000"}, byName{"40 01"}, byField{'M': "?"}, causal{}, &opaque{},
	} {
		if got := sqlState(err); got != "" {
			t.Errorf("SQLSTATE of %#v is %q, want none", err, got)
		}
	}
}

// TestStalePlan: the error of a plan from before an ALTER TABLE is told from all other
// features that aren't supported, in every language.
func TestStalePlan(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		err  error
		want bool
	}{
		{&pgconn.PgError{Code: "0A000", Message: "cached plan must not change result type"}, true},
		{&pgconn.PgError{Code: "0A000", Message: "gecachter Plan darf den Ergebnistyp nicht ändern", Routine: "RevalidateCachedQuery"}, true},
		{&pgconn.PgError{Code: "0A000", Message: "not supported"}, false},
		{nil, false},
	} {
		if got := stalePlan(test.err); got != test.want {
			t.Errorf("%v: %t, want %t", test.err, got, test.want)
		}
	}
}
