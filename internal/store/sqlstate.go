package store

import (
	"reflect"
	"slices"
	"strings"
)

// SQLSTATE codes that the package tells apart.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	codeStringTooLong        = "22001"
	codeDatetimeOverflow     = "22008"
	codeNotInRepertoire      = "22021"
	codeUntranslatable       = "22P05"
	codeReadOnlyTransaction  = "25006"
	codeFailedTransaction    = "25P02"
	codeIdleInTransaction    = "25P03"
	codeTransactionTimeout   = "25P04"
	codeInvalidStatementName = "26000"
	codeSerializationFailure = "40001"
	codeCompletionUnknown    = "40003"
	codeDeadlockDetected     = "40P01"
	codeUndefinedSchema      = "3F000"
	codeSyntaxError          = "42601"
	codeUndefinedObject      = "42704"
	codeInsufficientPriv     = "42501"
	codeUndefinedColumn      = "42703"
	codeUndefinedFunction    = "42883"
	codeUndefinedTable       = "42P01"
	codeDuplicateStatement   = "42P05"
	codeFeatureNotSupported  = "0A000"
	codeNotInState           = "55000"
	codeLockNotAvailable     = "55P03"
	codeQueryCanceled        = "57014"
	codeCannotConnectNow     = "57P03"
	codeInternalError        = "XX000"
)

// Fields of an error response.
// https://www.postgresql.org/docs/current/protocol-error-fields.html
const (
	fieldCode     = 'C'
	fieldMessage  = 'M'
	fieldRoutine  = 'R'
	fieldSeverity = 'V' // not translated; 'S' is
)

// goNames are the names that the fields have in drivers' errors.
var goNames = map[byte][]string{
	fieldCode:     {"SQLState", "SQLSTATE", "Code"},
	fieldMessage:  {"Message"},
	fieldRoutine:  {"Routine"},
	fieldSeverity: {"SeverityUnlocalized", "Severity"},
}

// sqlState is the SQLSTATE of a server's error, or "" for any other error.
func sqlState(err error) string {
	return field(serverError(err), fieldCode)
}

// serverError is the error in err's chain that has a SQLSTATE, or nil. Wrappers that hide an error
// from [errors.Unwrap] mostly have it in a field or a method Cause.
func serverError(err error) error { return serverErrorIn(err, 32) }

func serverErrorIn(err error, depth int) error {
	if err == nil || depth == 0 {
		return nil
	}

	if field(err, fieldCode) != "" {
		return err
	}

	var inner []error

	switch w := err.(type) { //nolint:errorlint // it walks the chain itself
	case interface{ Unwrap() error }:
		inner = []error{w.Unwrap()}
	case interface{ Unwrap() []error }:
		inner = w.Unwrap()
	case interface{ Cause() error }:
		inner = []error{w.Cause()}
	default:
		inner = errorFields(err)
	}

	for _, e := range inner {
		if found := serverErrorIn(e, depth-1); found != nil {
			return found
		}
	}

	return nil
}

// errorFields are the errors in the exported fields of an error.
func errorFields(err error) (inner []error) {
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() != reflect.Struct {
		return nil
	}

	for i := range v.NumField() {
		if f := v.Field(i); v.Type().Field(i).IsExported() && f.CanInterface() {
			if e, ok := f.Interface().(error); ok {
				inner = append(inner, e)
			}
		}
	}

	return inner
}

// field is what err itself says of a field of the server's response. pgx's error and lib/pq's have it
// in fields, that of bun's pgdriver in a method for all fields.
func field(err error, name byte) string {
	switch e := err.(type) { //nolint:errorlint // err is a link of the chain
	case nil:
		return ""
	case interface{ Field(name byte) string }:
		value := e.Field(name)
		if name == fieldSeverity && value == "" {
			value = e.Field('S')
		}

		if name == fieldCode && !isSQLState(value) {
			return ""
		}

		return value
	case interface{ SQLState() string }:
		if name == fieldCode {
			return e.SQLState()
		}
	}

	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() != reflect.Struct {
		return ""
	}

	for _, goName := range goNames[name] {
		f := v.FieldByName(goName)
		if f.IsValid() && f.Kind() == reflect.String && f.String() != "" && (name != fieldCode || isSQLState(f.String())) {
			return f.String()
		}
	}

	return ""
}

// isSQLState reports whether a value looks like a SQLSTATE. All have a digit, unlike "EPIPE".
func isSQLState(s string) bool {
	foreign := func(r rune) bool { return (r < '0' || r > '9') && (r < 'A' || r > 'Z') }

	return len(s) == 5 && !strings.ContainsFunc(s, foreign) && strings.ContainsAny(s, "0123456789")
}

// hasState reports whether err has one of the SQLSTATEs, or one of the classes, which are two
// characters.
func hasState(err error, prefixes ...string) bool {
	code := sqlState(err)

	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(code, prefix) })
}

// lostName reports whether a pooler lost the name of a prepared statement.
func lostName(err error) bool { return hasState(err, codeInvalidStatementName, codeDuplicateStatement) }
