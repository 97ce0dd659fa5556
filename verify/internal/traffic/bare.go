package traffic

import "time"

// Bare are locks in a table of three columns, which says neither who holds a lock nor who
// waits for it. No request for them asks for a minimum hold: the audit tells a grant from a
// release by the lease.
var Bare = []Spec{
	{"bare-0", 300 * time.Millisecond},
	{"bare-1", 900 * time.Millisecond},
}
