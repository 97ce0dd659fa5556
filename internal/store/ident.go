package store

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"strings"
	"unicode/utf8"
)

// maxIdentifierBytes is NAMEDATALEN - 1. The server would cut a longer name without an error, and
// two names that share their first 63 bytes would be the same table.
const maxIdentifierBytes = 63

// Table names the table that holds the locks. The zero value is not usable.
type Table struct {
	Schema string
	Name   string
	// Distributed: migrations distribute it, see distribute.go.
	Distributed bool
}

// Validate returns an error wrapping [ErrInvalidIdentifier] unless both names can be used as they
// are.
func (t Table) Validate() error {
	return cmp.Or(validateIdentifier("schema", t.Schema), validateIdentifier("table", t.Name))
}

// String is the qualified name, quoted as SQL needs it.
func (t Table) String() string {
	return quoteIdentifier(t.Schema) + "." + quoteIdentifier(t.Name)
}

// Channel is the name under which releases of this table's locks are notified. It is made of a
// hash, since it must be as short as an identifier. A collision costs a wake-up.
func (t Table) Channel() string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.String())) // never fails

	return fmt.Sprintf("pglocker_%016x", h.Sum64())
}

func validateIdentifier(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: %s name is empty", ErrInvalidIdentifier, kind)
	case len(name) > maxIdentifierBytes:
		return fmt.Errorf("%w: %s name %q has %d bytes, more than %d",
			ErrInvalidIdentifier, kind, name, len(name), maxIdentifierBytes)
	case strings.ContainsRune(name, 0):
		return fmt.Errorf("%w: %s name %q contains a NUL byte", ErrInvalidIdentifier, kind, name)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: %s name %q is not valid UTF-8", ErrInvalidIdentifier, kind, name)
	}

	return nil
}

// quoteIdentifier quotes a name as PostgreSQL does, by doubling the double quote. (Go's %q would
// escape backslashes and newlines.)
func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
