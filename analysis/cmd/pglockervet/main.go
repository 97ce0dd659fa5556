// Pglockervet reports mistakes in programs that use pglocker: see package analysis.
//
//	pglockervet ./...
//	go vet -vettool=$(which pglockervet) ./...
package main

import (
	"golang.org/x/tools/go/analysis/multichecker"

	"github.com/ismurov/pglocker/analysis"
)

func main() { multichecker.Main(analysis.Analyzers()...) }
