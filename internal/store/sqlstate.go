package store

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Fields of an error response.
// https://www.postgresql.org/docs/current/protocol-error-fields.html
const (
	fieldCode     = 'C'
	fieldMessage  = 'M'
	fieldRoutine  = 'R'
	fieldSeverity = 'V' // not translated; 'S' is
)

// sqlState is the SQLSTATE of a server's error, or "" for any other error. Drivers report it
// in different ways, see [field].
func sqlState(err error) string {
	return field(serverError(err), fieldCode)
}

// fatal reports whether the server ended the session with its error.
func fatal(err error) bool {
	severity := field(serverError(err), fieldSeverity)

	return severity == "FATAL" || severity == "PANIC"
}

// maxChain bounds how deep errors are looked into.
const maxChain = 32

// serverError is the error in err's chain that has a SQLSTATE, or nil. Wrappers that hide an
// error from [errors.Unwrap] mostly show it as a field or by a method Cause.
func serverError(err error) error { return serverErrorIn(err, maxChain) }

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

// field is what err itself says of a field of the server's response: pgx's error by its fields,
// lib/pq's by a method and fields, that of bun's pgdriver by a method for all fields.
func field(err error, name byte) string {
	switch e := err.(type) { //nolint:errorlint // err is a link of the chain
	case nil:
		return ""
	case *pgconn.PgError:
		switch name {
		case fieldCode:
			return e.Code
		case fieldSeverity:
			return cmp.Or(e.SeverityUnlocalized, e.Severity)
		case fieldRoutine:
			return e.Routine
		default:
			return e.Message
		}
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

	switch name {
	case fieldCode:
		return stringField(err, isSQLState, "SQLState", "SQLSTATE", "Code")
	case fieldSeverity:
		return stringField(err, notEmpty, "SeverityUnlocalized", "Severity")
	case fieldRoutine:
		return stringField(err, notEmpty, "Routine")
	default:
		return stringField(err, notEmpty, "Message")
	}
}

// stringField is the first of an error's exported fields of these names that has such a
// value, or "".
func stringField(err error, such func(string) bool, names ...string) string {
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() != reflect.Struct {
		return ""
	}

	for _, name := range names {
		if f := v.FieldByName(name); f.IsValid() && f.Kind() == reflect.String && such(f.String()) {
			return f.String()
		}
	}

	return ""
}

func notEmpty(s string) bool { return s != "" }

// isSQLState reports whether a value looks like a SQLSTATE. All of PostgreSQL's have a digit;
// codes of other things, such as "EPIPE", don't.
func isSQLState(s string) bool {
	foreign := func(r rune) bool { return (r < '0' || r > '9') && (r < 'A' || r > 'Z') }

	return len(s) == 5 && !strings.ContainsFunc(s, foreign) && strings.ContainsAny(s, "0123456789")
}

// hasClass reports whether a SQLSTATE is of one of the classes.
func hasClass(code string, classes ...string) bool {
	return len(code) == 5 && slices.Contains(classes, code[:2])
}
