package store

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// readable returns an error unless the server reads what pgx sends as UTF-8, and not as the
// encoding of the database. lib/pq always asks it to.
func readable(conn *pgconn.PgConn, text string, args []any) error {
	client := conn.ParameterStatus("client_encoding")
	if client == "UTF8" || client == "" {
		return nil
	}

	server := conn.ParameterStatus("server_encoding")

	switch {
	case server == "SQL_ASCII", server == "UTF8" && client == "SQL_ASCII": // nothing is converted
		return nil
	case isASCII(args) && isASCII([]any{text}):
		return nil
	}

	return fmt.Errorf("%w: the connection's client_encoding is %s, of a database in %s, and a lock id or a name is not ASCII: "+
		"set client_encoding=UTF8 in the connection string", ErrUnsupportedEncoding, client, server)
}

// isASCII reports whether all text among arguments is.
func isASCII(args []any) bool {
	return !slices.ContainsFunc(arrayLiterals(args), func(arg any) bool {
		text, _ := arg.(string)

		return strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
	})
}
