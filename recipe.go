package pglocker

import (
	"fmt"
	"strings"
)

// ReservedPrefix begins the ids of the rows that recipes use: semaphores, read-write locks, elections. No
// other lock may have such an id ([ErrReservedLockID]). They can be read in psql:
//
//	pglocker:election:NAME          an election
//	pglocker:semaphore:NAME:3       slot 3 of a semaphore
//	pglocker:semaphore:NAME:gate    what every grant of it changes
//	pglocker:rwlock:NAME:w          the writer of a read-write lock, and :3 one of its readers
//
// What stands behind the last colon of a semaphore's or a read-write lock's row is never part of its name.
const ReservedPrefix = "pglocker:"

// Kind is what a row of the table is for.
type Kind string

// The kinds of rows.
const (
	KindLock      Kind = "lock"
	KindSemaphore Kind = "semaphore"
	KindRWLock    Kind = "rwlock"
	KindElection  Kind = "election"
	// KindInternal is any other row with [ReservedPrefix].
	KindInternal Kind = "internal"
)

// maxPartBytes is the room for what a recipe adds to its name: a colon and the number of a slot.
const maxPartBytes = 16

// recipeID is the id of the row of a recipe.
func recipeID(kind Kind, name string) (id string, err error) {
	if name == "" {
		return "", fmt.Errorf("%w: empty", ErrInvalidName)
	}

	id = ReservedPrefix + string(kind) + ":" + name
	if room := MaxLockIDBytes - maxPartBytes - len(id) + len(name); len(name) > room {
		return "", fmt.Errorf("%w: %d bytes, more than %d", ErrInvalidName, len(name), room)
	}

	if err := validateLockID(id); err != nil {
		return "", fmt.Errorf("%w: %q", ErrInvalidName, name)
	}

	return id, nil
}

// KindOf returns the kind of a row by its lock id. For a recipe, name is its name, with the part of a slot
// (":3") if the row is that of one. For a lock it is the id.
func KindOf(lockID string) (kind Kind, name string) {
	rest, reserved := strings.CutPrefix(lockID, ReservedPrefix)
	if !reserved {
		return KindLock, lockID
	}

	text, name, _ := strings.Cut(rest, ":")

	switch kind := Kind(text); kind {
	case KindSemaphore, KindRWLock, KindElection:
		return kind, name
	}

	return KindInternal, rest
}

// validatePlainID checks the id of a lock that is no recipe's.
func validatePlainID(id string) error {
	if strings.HasPrefix(id, ReservedPrefix) {
		return fmt.Errorf("%w: %q", ErrReservedLockID, id)
	}

	return validateLockID(id)
}
