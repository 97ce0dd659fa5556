package doctor

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"sync"
)

// sqlReplication reads which standbys a commit waits for, and how many do wait. A role that doesn't see other
// sessions sees no state.
const sqlReplication = `
SELECT current_setting('synchronous_standby_names'),
       (SELECT count(*) FROM pg_stat_replication),
       (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')),
       (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep')`

// standbyNames is how PostgreSQL reads synchronous_standby_names: without a number one standby is waited for.
var standbyNames = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?is)^\s*(?:(?:first|any)\s+)?(\d+)\s*\(`)
})

// required is how many standbys a commit waits for.
func required(names string) int64 {
	if found := standbyNames().FindStringSubmatch(names); found != nil {
		n, _ := strconv.ParseInt(found[1], 10, 64)

		return n
	}

	return 1
}

func checkReplication(ctx context.Context, p *patient, result *Check) error {
	type replication struct {
		Names                     string
		Standbys, Prompt, Waiting int64
	}

	r, err := readRow[replication](ctx, p, sqlReplication)

	switch {
	case err != nil:
		return err
	case p.standby:
		result.skip("a standby doesn't tell it")

		return nil
	case r.Names == "":
		result.seen("%s, none of them synchronous", many(r.Standbys, "standby connection"))

		return nil
	case !p.seesAll:
		result.skip("synchronous_standby_names is set, and the role doesn't see whether they are connected: GRANT pg_read_all_stats TO %s;",
			p.forRole)

		return nil
	}

	needed := required(r.Names)
	result.seen("%d of %d synchronous standbys", r.Prompt, needed)

	if r.Prompt < needed {
		result.find(Error, "synchronous-standby", fmt.Sprintf("synchronous_standby_names is %q: commits wait for %s, and %d connected. "+
			"%s now.", r.Names, many(needed, "standby connection"), r.Prompt, many(r.Waiting, "session")+" waiting"),
			"Every commit hangs. No lock is granted or renewed: holders lose their locks. Don't cancel what waits, or "+
				"PostgreSQL acknowledges what no standby has.",
			"-- Bring the standby back. Or go on without it, which weakens what G4 promises:\n"+
				"ALTER SYSTEM SET synchronous_standby_names = '';\nSELECT pg_reload_conf();")
	}

	return nil
}
