package store

import (
	"database/sql/driver"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"
)

// pgxArrays replaces slices by what pgx encodes without an allocation for each element.
func pgxArrays(args []any) []any {
	arrays := slices.Clone(args)

	for i, arg := range args {
		switch v := arg.(type) {
		case []string:
			arrays[i] = &pgxArray[string, pgtype.Text]{values: v, wrap: pgxText, literal: textArray}
		case []int64:
			arrays[i] = &pgxArray[int64, pgtype.Int8]{values: v, wrap: pgxBigint, literal: bigintArray}
		}
	}

	return arrays
}

func pgxText(s string) pgtype.Text  { return pgtype.Text{String: s, Valid: true} }
func pgxBigint(n int64) pgtype.Int8 { return pgtype.Int8{Int64: n, Valid: true} }

// pgxArray is a [pgtype.ArrayGetter]. All its elements pass through one.
type pgxArray[T, Element any] struct {
	values  []T
	wrap    func(T) Element
	element Element
	literal func([]T) string
}

func (a *pgxArray[T, Element]) Dimensions() []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(len(a.values)), LowerBound: 1}}
}

func (a *pgxArray[T, Element]) Index(i int) any {
	a.element = a.wrap(a.values[i])

	return &a.element
}

func (a *pgxArray[T, Element]) IndexType() any { return &a.element }

// Value is for the modes of pgx that don't ask the server for the types of parameters.
func (a *pgxArray[T, Element]) Value() (driver.Value, error) { return a.literal(a.values), nil }

// String and MarshalText are for tracers, which log arguments, in JSON too. They read only what never changes: a tracer
// may log while pgx encodes.
func (a *pgxArray[T, Element]) String() string               { return a.literal(a.values) }
func (a *pgxArray[T, Element]) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
