//go:build !race

// Package race tells tests whether the race detector slows them down.
package race

// Enabled: it doesn't.
const Enabled = false
