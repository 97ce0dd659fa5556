// Package migrations holds the schema of pglocker's table as plain SQL, for
// projects whose tables are made by a migration tool of their own. The files
// use the default names; for others take MigrateDB, because the functions have a
// hash of the name. The folders goose, golang-migrate, tern and atlas have the same
// for these tools.
//
// [github.com/ismurov/pglocker.MigrateDB] makes the same schema without them.
package migrations

import "embed"

// FS holds the files, in the order of their names. Each can be run again
// without harm.
//
//go:embed *.sql
var FS embed.FS

// History holds the files of the history, which is opt-in, in the order of their names.
// [github.com/ismurov/pglocker.MigrateHistory] makes the same without them.
//
//go:embed history/*.sql
var History embed.FS
