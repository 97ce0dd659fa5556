package store

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// arrayLiterals replaces slices by array literals, which every driver can pass.
func arrayLiterals(args []any) []any {
	literals := slices.Clone(args)

	for i, arg := range args {
		switch v := arg.(type) {
		case []string:
			literals[i] = textArray(v)
		case []int64:
			literals[i] = bigintArray(v)
		}
	}

	return literals
}

var arrayQuoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// textArray quotes every element: NULL, braces, commas and leading blanks are what they say.
func textArray(values []string) string {
	return arrayLiteral(values, func(b []byte, v string) []byte { return append(append(append(b, '"'), arrayQuoter.Replace(v)...), '"') })
}

func bigintArray(values []int64) string {
	return arrayLiteral(values, func(b []byte, v int64) []byte { return strconv.AppendInt(b, v, 10) })
}

func arrayLiteral[T any](values []T, add func(b []byte, v T) []byte) string {
	b := append(make([]byte, 0, 2+len(values)*16), '{')

	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}

		b = add(b, v)
	}

	return string(append(b, '}'))
}

// inline returns the statement with its arguments in it, if it can write all of them.
func inline(quote func(string) string, text string, args []any) (string, bool) {
	literals := make([]string, len(args))

	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			literals[i] = quote(v)
		case int64:
			literals[i] = "'" + strconv.FormatInt(v, 10) + "'"
		default:
			return "", false
		}
	}

	var (
		b      strings.Builder
		quoted byte // the quote inside of which this is, or 0
	)

	for i := 0; i < len(text); i++ {
		c := text[i]

		switch {
		case quoted != 0:
			// A doubled quote ends it and begins it again, which is the same.
			if c == quoted {
				quoted = 0
			}
		case c == '\'', c == '"':
			quoted = c
		case c == '$':
			end := i + 1
			for end < len(text) && text[end] >= '0' && text[end] <= '9' {
				end++
			}

			n, err := strconv.Atoi(text[i+1 : end])
			if err != nil || n < 1 || n > len(literals) {
				return "", false
			}

			b.WriteString(literals[n-1])

			i = end - 1

			continue
		}

		b.WriteByte(c)
	}

	return b.String(), true
}

// asciiLiteral is quoteLiteral with escapes for what isn't ASCII, which the server turns into the
// encoding of the database. (PostgreSQL 12 does so in databases in UTF8 alone.)
func asciiLiteral(s string) string {
	var b strings.Builder

	for _, r := range quoteLiteral(s) {
		if r < utf8.RuneSelf {
			b.WriteByte(byte(r))
		} else {
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}

	return b.String()
}

// bytesLiteral is quoteLiteral, but for what isn't ASCII, which it says by the bytes: every server has the same text then,
// whatever the encodings of the connection and of the database.
func bytesLiteral(s string) string {
	if isASCII([]any{s}) {
		return quoteLiteral(s)
	}

	return "pg_catalog.convert_from(pg_catalog.decode('" + hex.EncodeToString([]byte(s)) + "', 'hex'), 'UTF8')"
}

// quoteLiteral quotes a string for every setting of standard_conforming_strings.
func quoteLiteral(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}

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
