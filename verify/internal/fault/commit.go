package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
)

// failingSQL makes a tenth of all changes of locks fail at the commit, by a deferred trigger. The
// statement was carried out by then, and the client may have its rows. A conflict that is noticed
// late or a full disk do the same. The seed decides which changes fail, by their number, and how.
//
// It may be run again where its own outcome isn't known. No crash undoes it.
const failingSQL = `
BEGIN;
SET LOCAL synchronous_commit = on;

CREATE SEQUENCE IF NOT EXISTS audit.failures;
CREATE SEQUENCE IF NOT EXISTS audit.changes;

CREATE OR REPLACE FUNCTION audit.fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    drawn integer := hashint8(nextval('audit.changes') # {seed}) & 1023;
BEGIN
    IF drawn < 102 THEN
        PERFORM nextval('audit.failures'); -- which no failure takes back
        RAISE EXCEPTION 'failed at the commit'
              USING ERRCODE = (ARRAY['40001', '23514', '53100'])[1 + drawn % 3];
    END IF;
    RETURN NULL;
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'failing') THEN
        CREATE CONSTRAINT TRIGGER failing AFTER INSERT OR UPDATE ON pglocker.lock_statuses
               DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit.fail();
    END IF;
END $$;

COMMIT`

// succeedingSQL ends that. To drop the trigger would mean to wait for all transactions.
const succeedingSQL = `
BEGIN;
SET LOCAL synchronous_commit = on;

CREATE OR REPLACE FUNCTION audit.fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
BEGIN
    RETURN NULL;
END $$;

COMMIT`

func failCommits(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	failing := strings.ReplaceAll(failingSQL, "{seed}", strconv.FormatInt(r.Int64(), 10))
	if err := eventually(ctx, c, failing); err != nil {
		return err
	}

	<-ctx.Done()

	if err := eventually(ctx, c, succeedingSQL); err != nil {
		return err
	}

	return countSequence(ctx, c, "audit.failures")
}

// countSequence counts what a sequence has counted as broken. After a crash the count may be up to
// 32 too large: a sequence is logged that many numbers ahead.
func countSequence(ctx context.Context, c *cluster.Cluster, name string) error {
	var failures int64

	return persist(ctx, func(ctx context.Context) error {
		err := c.Admin.QueryRowContext(ctx,
			`SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM `+name).Scan(&failures)
		if err != nil {
			return err
		}

		c.Injected.Add(failures)

		return nil
	})
}

// eventually runs statements that may be run twice. Another fault may have the server down, and ctx
// may have ended.
func eventually(ctx context.Context, c *cluster.Cluster, sql string) error {
	return persist(ctx, func(ctx context.Context) error {
		_, err := c.Admin.ExecContext(ctx, sql)

		return err
	})
}

// patience is how long the coordinator waits for a server that another fault has taken
// away, or for the next that leads.
const patience = 30 * time.Second

// persist tries again until it is done, also after ctx has ended.
func persist(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()

	for {
		err := try(ctx)
		if err == nil {
			return nil
		}

		if ctx.Err() != nil {
			return fmt.Errorf("fault: %w", err)
		}

		time.Sleep(10 * time.Millisecond)
	}
}
