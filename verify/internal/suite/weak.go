package suite

import (
	"fmt"
	"strings"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// emptiness says why a run proved nothing, or "": a fault broke nothing, or no writer got to write.
func (r *Result) emptiness(run *oracle.Run) string {
	var lacks []string

	if r.Injected == 0 && !r.Job.Fault.Harmless {
		lacks = append(lacks, "nothing was broken")
	}

	for _, place := range r.Job.Fault.Places {
		if r.Stops[place] == 0 {
			lacks = append(lacks, fmt.Sprintf("no client stopped at %q", place))
		}
	}

	// A client that only waits doesn't write.
	if !r.Job.Control && !r.Job.Fault.Waits && !written(run) {
		lacks = append(lacks, fmt.Sprintf("no write was accepted, so that %s had nothing to judge", oracle.Fencing))
	}

	return strings.Join(lacks, "; ")
}

// written reports whether one of the fenced resources has taken a write.
func written(run *oracle.Run) bool {
	if len(run.Writes) > 0 {
		return true
	}

	for _, e := range run.History.Notes {
		if e.Kind == history.Write {
			return true
		}
	}

	return false
}
