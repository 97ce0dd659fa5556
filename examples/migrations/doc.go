// Package migrations runs the files of pglocker for migration tools by these tools, and shows
// how a program runs its own migrations under a lock. docs/migrations.md is about both.
//
// goose_test.go and migrate_test.go begin with the function that a program would copy.
package migrations
