package pglocker

import "strings"

const errorPrefix = "pglocker: "

// tidy has the text of an error begin with "pglocker: ", and say so once: an error of
// this package often wraps another. What the error matches stays.
func tidy(err error) error {
	if err == nil {
		return nil
	}

	if text := err.Error(); strings.HasPrefix(text, errorPrefix) && strings.Count(text, errorPrefix) == 1 {
		return err
	}

	return tidied{err}
}

type tidied struct{ err error }

func (t tidied) Error() string {
	return errorPrefix + strings.ReplaceAll(t.err.Error(), errorPrefix, "")
}

func (t tidied) Unwrap() error { return t.err }
