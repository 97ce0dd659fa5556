package store

import (
	"slices"
	"strconv"
	"strings"
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
	var b strings.Builder

	b.WriteByte('{')

	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}

		b.WriteByte('"')
		_, _ = arrayQuoter.WriteString(&b, v) // never fails
		b.WriteByte('"')
	}

	b.WriteByte('}')

	return b.String()
}

// bigintArray writes a PostgreSQL array literal of bigint.
func bigintArray(values []int64) string {
	b := make([]byte, 0, 2+len(values)*8)
	b = append(b, '{')

	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}

		b = strconv.AppendInt(b, v, 10)
	}

	return string(append(b, '}'))
}
