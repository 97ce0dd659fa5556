// Package mutant breaks the library on purpose, in a copy of its source, to see whether
// the suite notices. The library itself knows nothing of it.
package mutant

// Mutant is one way to get the protocol wrong.
type Mutant struct {
	Name string
	// File is where Old is replaced by New, everywhere in it.
	File, Old, New string
	// Fault is the one under which it shows.
	Fault string
}

// All lists the mutants.
func All() []Mutant {
	const (
		statements = "internal/store/statements.go"
		store      = "internal/store/store.go"
	)

	return []Mutant{
		{
			Name: "release any generation", File: statements,
			Old:   "   AND l.generation = $2::bigint{seen}\nRETURNING {notify}",
			New:   "   AND $2::bigint > 0{seen}\nRETURNING {notify}",
			Fault: "net-late",
		},
		{
			Name: "grants that aren't flushed", File: statements,
			Old:   "THEN set_config('synchronous_commit', 'on', true) END`",
			New:   "THEN set_config('synchronous_commit', 'off', true) END`",
			Fault: "server-kill",
		},
		{
			Name: "unknown grant reported as refused", File: store,
			Old:   "a.err = fmt.Errorf(\"%w: %w\", ErrUnknownOutcome, a.err)",
			New:   "a.outcome = refused",
			Fault: "net-one-way",
		},
		{
			Name: "guard as FOR KEY SHARE", File: statements,
			Old: "   FOR SHARE`", New: "   FOR KEY SHARE`",
			Fault: "writer-stop",
		},
		{
			Name: "a lease that is granted before its end", File: statements,
			Old:   " WHERE l.lock_id = $1\n   AND l.expires_at <= clock_timestamp()\nRETURNING {row}, {durable}`",
			New:   " WHERE l.lock_id = $1\n   AND l.expires_at <= clock_timestamp() + interval '50 ms'\nRETURNING {row}, {durable}`",
			Fault: "none",
		},
	}
}
