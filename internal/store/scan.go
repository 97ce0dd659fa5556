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

// drain runs a query and reads all of it. Only then has the server confirmed the commit, or said
// that it failed.
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

// one is the answer to one of several requests: to that of this number, counted from 1, or of this
// id.
type one[T any] struct {
	number int64
	id     string
	value  T
}

// byNumber reads the rows of a batch, of which scan reads all but the request's number.
func byNumber[T any](scan func(number any) scanFunc[T]) func() scanFunc[one[T]] {
	return func() scanFunc[one[T]] {
		var number int64

		value := scan(&number)

		return func(from scanner) (o one[T], err error) {
			o.value, err = value(from)
			o.number = number

			return o, err
		}
	}
}

// byID is byNumber for the statements that insert, whose rows are told apart by the id.
func byID[T any](scan func(id any) scanFunc[T]) func() scanFunc[one[T]] {
	return func() scanFunc[one[T]] {
		var id string

		value := scan(&id)

		return func(from scanner) (o one[T], err error) {
			o.value, err = value(from)
			o.id = id

			return o, err
		}
	}
}

// scanBoolAnd reads a truth and the column behind it, row after row.
func scanBoolAnd(more any) scanFunc[bool] {
	var (
		value bool
		dest  = []any{&value, more}
	)

	return func(from scanner) (bool, error) {
		err := from.Scan(dest...)

		return value, err
	}
}
