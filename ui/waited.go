package ui

import "github.com/ismurov/pglocker"

// waited reports whether a waiter has marked the row.
func waited(pglocker.LockStatus) bool { return false }
