package store

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

	for rows.Next() {
		row, err := scan(rows)
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

// one is the answer to one of several requests, by its number, from 1, or by its id.
type one[T any] struct {
	number int64
	id     string
	value  T
}

// scanMany reads the rows of a batch: the request's number, or its id, goes behind the value. byID is read
// when there is a row.
func scanMany[T any](scan func(more any) scanFunc[T], byID *bool) scanFunc[one[T]] {
	var (
		o     one[T]
		value scanFunc[T]
	)

	return func(from scanner) (_ one[T], err error) {
		if value == nil {
			var tag any = &o.number
			if *byID {
				tag = &o.id
			}

			value = scan(tag)
		}

		o.value, err = value(from)

		return o, err
	}
}

// scanBool reads a truth and the column behind it, row after row.
func scanBool(more any) scanFunc[bool] {
	s := new(struct {
		value bool
		dest  [2]any
	})
	s.dest = [2]any{&s.value, more}

	return func(from scanner) (bool, error) {
		err := from.Scan(s.dest[:]...)

		return s.value, err
	}
}
