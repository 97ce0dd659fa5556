package pglockergocron

import "github.com/ismurov/pglocker"

// Untold is an Elector whose election runs elsewhere: it isn't told of terms.
func Untold(election *pglocker.Election) *Elector {
	return &Elector{election: election, ended: make(chan struct{})}
}
