// A checker for programs that use pglocker, in a module of its own: whoever uses the library
// should not have to resolve golang.org/x/tools.
module github.com/ismurov/pglocker/analysis

go 1.26.0

require golang.org/x/tools v0.51.0

require (
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
)
