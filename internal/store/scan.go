package store

import (
	"fmt"
	"slices"
)

// scanFunc reads one row of a result.
type scanFunc[T any] func(from scanner) (T, error)

// scanner is the row that rows stand on, of database/sql or of pgx.
type scanner interface {
	Scan(dest ...any) error
}

// result is what a query returns, by either.
type result interface {
	scanner
	Next() bool
	Err() error
	Close() error
}

// drain runs a query and reads all rows. Only then has the server confirmed the commit.
func drain[T any, R result](query func() (R, error), expect int, scan scanFunc[T]) (scanned []T, err error) {
	rows, err := query()
	if err != nil {
		return nil, err
	}

	scanned = make([]T, 0, expect)

	var from scanner = rows // once, not for each row

	for rows.Next() {
		row, err := scan(from)
		if err != nil {
			_ = rows.Close() // the scan's error says more

			return nil, err
		}

		scanned = append(scanned, row)
	}

	err = rows.Err()
	if closeErr := rows.Close(); err == nil {
		err = closeErr
	}

	return scanned, err
}

// scanOne reads a row of one column.
func scanOne[T any](from scanner) (value T, err error) {
	err = from.Scan(&value)

	return value, err
}

// one is the answer to one of several requests, by its place among them: -1 for an answer to none.
type one[T any] struct {
	place int
	value T
}

// scanMany reads the rows of a batch. p is read when there is a row.
func scanMany[T any](scan func(behind *tag) scanFunc[T], p *prepared) scanFunc[one[T]] {
	var (
		t     tag
		value scanFunc[T]
	)

	return func(from scanner) (o one[T], err error) {
		if value == nil {
			t = tag{reqs: p.reqs, byID: p.byID}
			t.column = &t.number

			if t.byID {
				t.column = &t.id
			}

			value = scan(&t)
		}

		o.value, err = value(from)
		o.place = t.place()

		return o, err
	}
}

// tag is the column behind a value. In a batch it says for which of the requests the row is: by the number, from 1, or
// by the id.
type tag struct {
	column any
	reqs   []request // sorted by the id
	byID   bool
	number int64
	id     text
}

// untagged is the column of a statement for one request.
func untagged(column any) *tag { return &tag{column: column} }

// place is that of the request, the first for the lock, or -1 if there is none.
func (t *tag) place() int {
	if !t.byID {
		if t.number < 1 || t.number > int64(len(t.reqs)) {
			return -1
		}

		return int(t.number) - 1
	}

	i, found := slices.BinarySearchFunc(t.reqs, t.id, func(r request, id text) int { return compareToText(r.id, id) })
	if !found {
		return -1
	}

	return i
}

// compareToText compares without a copy of the text.
func compareToText(id string, t text) int {
	switch {
	case id == string(t):
		return 0
	case id < string(t):
		return -1
	}

	return 1
}

// owner is the text of an owner. Most rows show that of their request, which needs no copy.
func (t *tag) owner(shown text) string {
	if i := t.place(); i >= 0 && t.reqs[i].owner == string(shown) {
		return t.reqs[i].owner
	}

	return string(shown)
}

// text is read into the same room row after row. NULL is empty.
type text []byte

// ScanBytes is for pgx.
func (t *text) ScanBytes(src []byte) error {
	*t = append((*t)[:0], src...)

	return nil
}

// Scan is for database/sql.
func (t *text) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*t = (*t)[:0]
	case string:
		*t = append((*t)[:0], v...)
	case []byte:
		*t = append((*t)[:0], v...)
	default:
		return fmt.Errorf("pglocker: %T is no text", src)
	}

	return nil
}

// scanBool reads a truth and the column behind it, row after row.
func scanBool(behind *tag) scanFunc[bool] {
	s := new(struct {
		value bool
		dest  [2]any
	})
	s.dest = [2]any{&s.value, behind.column}

	return func(from scanner) (bool, error) {
		err := from.Scan(s.dest[:]...)

		return s.value, err
	}
}
