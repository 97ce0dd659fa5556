package store

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// isPq reports whether the driver is lib/pq. It parses a statement with arguments in one message
// and runs it in another, see [way]. Without arguments it sends one message.
func isPq(db *sql.DB) bool { return fmt.Sprintf("%T", db.Driver()) == pqDriver }

// pqDriver is the type of lib/pq's driver, which is not imported.
const pqDriver = "*pq.Driver"

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

// quoteLiteral quotes a string for every setting of standard_conforming_strings.
func quoteLiteral(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}
