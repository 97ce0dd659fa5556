// Package integrations shows, in its tests, how pglocker goes with pgxpool, gorm, sqlx, bun, ent
// and sqlc: what pglocker.New is given, and how a transaction of that library is guarded. It is a
// module of its own, since the library's users should not have to resolve all of these.
package integrations
