package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// The library can bear the faults of this file: they leave most locks alone, or another request
// does better.

// refusingSQL lets a trigger refuse changes of the rows in a table, as a policy, a constraint,
// a partition that is locked or a page that is broken would. It may be run again.
const refusingSQL = `
BEGIN;
SET LOCAL synchronous_commit = on;

CREATE SEQUENCE IF NOT EXISTS audit.refusals;
CREATE TABLE IF NOT EXISTS audit.refused (lock_id text PRIMARY KEY, code text NOT NULL);

CREATE OR REPLACE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    why text;
BEGIN
    SELECT r.code INTO why FROM audit.refused AS r WHERE r.lock_id = NEW.lock_id;
    IF FOUND THEN
        PERFORM nextval('audit.refusals'); -- which no refusal takes back
        RAISE EXCEPTION '` + refusal + `' USING ERRCODE = why;
    END IF;
    RETURN NEW;
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'refusing') THEN
        CREATE TRIGGER refusing BEFORE UPDATE ON pglocker.lock_statuses
               FOR EACH ROW EXECUTE FUNCTION audit.refuse();
    END IF;
END $$;

COMMIT`

// refusal is in the error of a row that is refused. So many statements fail then that a busy
// machine may lose a lock for want of time.
const refusal = "this row is refused"

// refuseRows has rows refused, some for longer than their leases last: in turn those of each
// client that may be lost, and one that all clients use.
func refuseRows(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	if err := eventually(ctx, c, refusingSQL); err != nil {
		return err
	}

	// Class 54 is for limits. At a commit it says that the queue of notifications is full.
	codes := []string{"23514", "44000", "P0001", "54000"}
	// These are renewed all the time, together with others. Too many requests for others would be
	// refused.
	kept := traffic.Kept

	for n := 0; rest(ctx, between(r, 20, 100)); n++ {
		ids := []string{kept[r.IntN(len(kept))].ID}
		lease := traffic.SparedTTL

		if n%2 == 1 {
			var err error
			if ids, err = column[string](ctx, c, `
				SELECT lock_id FROM pglocker.lock_statuses WHERE lock_id LIKE '`+traffic.DoomedLike+`' ORDER BY lock_id`); err != nil {
				continue // ctx has ended
			}

			lease = traffic.DoomedTTL
		}

		from := history.Now()

		err := eventually(ctx, c, fmt.Sprintf(`
			BEGIN; SET LOCAL synchronous_commit = on;
			INSERT INTO audit.refused SELECT id, '%s' FROM unnest('{%s}'::text[]) AS id ON CONFLICT DO NOTHING; COMMIT`,
			codes[r.IntN(len(codes))], strings.Join(ids, ",")))
		if err != nil {
			return err
		}

		rest(ctx, lease+between(r, 200, 600))

		if err := eventually(ctx, c, `BEGIN; SET LOCAL synchronous_commit = on; DELETE FROM audit.refused; COMMIT`); err != nil {
			return err
		}

		for _, id := range ids {
			c.Notes.Note(history.Event{Kind: history.RowRefused, Detail: id, From: from})
		}
	}

	return countSequence(ctx, c, "audit.refusals")
}

// roleTimeout is the timeout of the clients' role. guardFor is how long a transaction's guards hold
// rows: longer than roleTimeout, and shorter than the longest leases.
const roleTimeout = 300 * time.Millisecond

func guardFor(r *rand.Rand) time.Duration { return between(r, 1000, 1400) }

func shortTimeouts() string {
	limit := fmt.Sprintf("'%dms'", roleTimeout.Milliseconds())

	return cluster.RoleSetting("lock_timeout", limit) + cluster.RoleSetting("statement_timeout", limit)
}

// guardRows has guards hold rows for longer than the clients' statements may last.
func guardRows(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	return holdRows(ctx, c, r, guardFor, "SHARE")
}

// referToRows has rows locked as a foreign key to them does, for longer than leases last. That
// includes the locks that mustn't be lost.
func referToRows(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	pause := func(r *rand.Rand) time.Duration { return traffic.SparedTTL + between(r, 200, 600) }

	return holdRows(ctx, c, r, pause, "KEY SHARE")
}

// makeReaders makes a quarter of the clients' sessions read-only, as if they had been opened to a
// server that had just lost its role to another.
func makeReaders(c *cluster.Cluster, r *rand.Rand) {
	const one, of = 1, 4

	for _, client := range c.Clients {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))

		client.Middle.ReadOnly(func() bool { return r.IntN(of) < one })
	}
}

// keepReaders lets makeReaders make no more after its time. Sessions that are read-only stay so.
func keepReaders(ctx context.Context, c *cluster.Cluster, _ *rand.Rand) error {
	<-ctx.Done()

	for _, client := range c.Clients {
		client.Middle.ReadOnly(nil)
		c.Injected.Add(client.Middle.Made())
	}

	return nil
}
