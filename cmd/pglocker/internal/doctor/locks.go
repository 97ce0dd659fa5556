package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// What the locks themselves say. Rows that recipes keep for themselves, and leases of elections, which may be
// held for months, are left out.

// jobs is the condition for rows that jobs hold: plain locks, semaphores and read-write locks.
const jobs = ` (NOT starts_with(l.lock_id, 'pglocker:') OR starts_with(l.lock_id, 'pglocker:semaphore:')
                OR starts_with(l.lock_id, 'pglocker:rwlock:'))`

// lease is a lease that was about to end.
type lease struct {
	ID      string
	Token   int64
	Expires time.Time
}

// shortLook is how short the rest of a lease is that is looked at twice. It is more than a third of the TTL of
// all but very short leases, which is the longest that a renewed lease is left with.
const shortLook = 2 * time.Second

func (p *patient) sqlShort() string {
	return `
SELECT l.lock_id::text, l.generation, l.expires_at FROM ` + p.table + ` AS l
 WHERE l.expires_at > clock_timestamp() AND l.expires_at < clock_timestamp() + $1::float8 * interval '1 second'
 ORDER BY l.expires_at LIMIT 100`
}

// shortLeases are those that end within two seconds.
func (p *patient) shortLeases(ctx context.Context) ([]lease, error) {
	return readRows[lease](ctx, p, p.sqlShort(), shortLook.Seconds())
}

func (p *patient) sqlCount() string {
	crashed := "false"
	if p.owners {
		crashed = "l.owner IS NOT NULL AND " + jobs
	}

	waited := "false"
	if p.owners {
		waited = "l.contended_until > clock_timestamp()"
	}

	return `
SELECT count(*), count(*) FILTER (WHERE l.expires_at > clock_timestamp()), count(*) FILTER (WHERE ` + waited + `),
       count(*) FILTER (WHERE ` + crashed + ` AND l.expires_at <= clock_timestamp()
                          AND l.expires_at > clock_timestamp() - $1::float8 * interval '1 second')
  FROM ` + p.table + ` AS l`
}

func checkLocks(ctx context.Context, p *patient, result *Check) error {
	type count struct{ Rows, Held, Waited, Crashed int64 }

	n, err := readRow[count](ctx, p, p.sqlCount(), p.limits.Crashed.Seconds())
	if err != nil {
		return err
	}

	result.seen("%s, %d held, %d waited for", many(n.Rows, "row"), n.Held, n.Waited)

	if err := findUnrenewed(ctx, p, result); err != nil {
		return err
	}

	if !p.owners {
		result.note("Without the columns owner and acquired_at, locks that are held for long or whose holder crashed don't show.")

		return nil
	}

	if err := findLongHeld(ctx, p, result); err != nil {
		return err
	}

	if n.Crashed == 0 {
		return nil
	}

	return findCrashed(ctx, p, result, n.Crashed)
}

// holding is a lock with its owner.
type holding struct {
	ID, Owner string
	Token     int64
	Seconds   float64
}

func findLongHeld(ctx context.Context, p *patient, result *Check) error {
	found, err := readRows[holding](ctx, p, `
SELECT l.lock_id::text, coalesce(l.owner::text, ''), l.generation, extract(epoch FROM clock_timestamp() - l.acquired_at)::float8
  FROM `+p.table+` AS l
 WHERE l.expires_at > clock_timestamp() AND l.acquired_at < clock_timestamp() - $1::float8 * interval '1 second' AND `+jobs+`
 ORDER BY l.acquired_at LIMIT 5`, p.limits.LongHeld.Seconds())

	for _, h := range found {
		result.find(Warning, "long-held", fmt.Sprintf("The lock %q is held by %q for %s.", h.ID, h.Owner, seconds(h.Seconds)),
			"Its holder lives, and renews. It works for that long, or hangs.",
			fmt.Sprintf("pglocker show %s  # look at the holder's process. If it hangs, end it, or:\n"+
				"pglocker free %s --token %d --reason '...'", shell(h.ID), shell(h.ID), h.Token))
	}

	return err
}

func findCrashed(ctx context.Context, p *patient, result *Check, all int64) error {
	found, err := readRows[holding](ctx, p, `
SELECT l.lock_id::text, coalesce(l.owner::text, ''), l.generation, extract(epoch FROM clock_timestamp() - l.expires_at)::float8
  FROM `+p.table+` AS l
 WHERE l.owner IS NOT NULL AND l.expires_at <= clock_timestamp()
   AND l.expires_at > clock_timestamp() - $1::float8 * interval '1 second' AND `+jobs+`
 ORDER BY l.expires_at DESC LIMIT 5`, p.limits.Crashed.Seconds())

	var (
		seen []string
		look []string
	)

	for _, h := range found {
		seen = append(seen, fmt.Sprintf("%q, %s ago, of %q", h.ID, seconds(h.Seconds), h.Owner))
		look = append(look, "pglocker history "+shell(h.ID))
	}

	if len(found) > 0 { // else they were granted meanwhile
		result.find(Warning, "crashed", fmt.Sprintf("%s ended without a release within %s. The latest: %s.",
			many(all, "lease"), span(p.limits.Crashed), strings.Join(seen, "; ")),
			"The holder crashed, was paused, or lost the database, or it doesn't release leases that it takes by hand. Its work may be "+
				"half done. The lock is free.", strings.Join(look, "\n"))
	}

	return err
}

// findUnrenewed finds leases that were about to end at the first look, and were not renewed since.
func findUnrenewed(ctx context.Context, p *patient, result *Check) error {
	if len(p.short) == 0 {
		return nil
	}

	now, err := readRows[lease](ctx, p, `SELECT l.lock_id::text, l.generation, l.expires_at FROM `+p.table+` AS l WHERE l.lock_id = ANY ($1::text[])`, ids(p.short))
	if err != nil {
		return err
	}

	same := make(map[string]lease, len(now))
	for _, l := range now {
		same[l.ID] = l
	}

	for _, l := range p.short {
		if seen := same[l.ID]; seen.Token == l.Token && seen.Expires.Equal(l.Expires) {
			result.find(Warning, "not-renewed", fmt.Sprintf("The lease of %q was about to end, and was not renewed.", l.ID),
				"Its holder hangs or is gone, or a transaction has the row locked. Or the lease was taken by hand, or has a long relock interval.",
				fmt.Sprintf("pglocker show %s", shell(l.ID)))
		}
	}

	return nil
}

func ids(leases []lease) (ids []string) {
	for _, l := range leases {
		ids = append(ids, l.ID)
	}

	return ids
}
