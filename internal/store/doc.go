// Package store is the only part of pglocker that talks to the database: every
// SQL text, quoting, scanning, and the reading of what an error means.
//
// Each transition of a lock is one statement in a transaction of its own, so
// that nothing depends on a session and any pooler will do. A statement has
// one of three ends:
//
//   - it completed: all rows were drained and the commit was confirmed;
//   - it failed and changed nothing: the server refused it, or it never left;
//   - nobody knows ([ErrUnknownOutcome]): it was sent, and no answer came.
//
// Rows of RETURNING reach the client before the commit, hence a result counts
// only once the whole statement has ended without an error.
//
// Each verb has a file: acquire.go, claim.go, renew.go, release.go. What they share stands in
// transition.go, the next generation, which is the token, among it.
package store
