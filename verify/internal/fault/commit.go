package fault

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/ismurov/pglocker/verify/internal/cluster"
)

// failingSQL makes a tenth of all changes of locks fail when they are to be committed, by
// a deferred trigger: the statement was carried out then, and its rows may be with the
// client. A conflict that is noticed late or a full disk do the same.
const failingSQL = `
CREATE SEQUENCE audit.failures;

CREATE FUNCTION audit.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.1 THEN
        PERFORM nextval('audit.failures'); -- which no failure takes back
        RAISE EXCEPTION 'failed at the commit'
              USING ERRCODE = (ARRAY['40001', '23514', '53100'])[1 + floor(random() * 3)::integer];
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER failing AFTER INSERT OR UPDATE ON pglocker.lock_statuses
       DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit.fail()`

// succeedingSQL ends that. To drop the trigger would mean to wait for all transactions.
const succeedingSQL = `
CREATE OR REPLACE FUNCTION audit.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$`

func failCommits(ctx context.Context, c *cluster.Cluster, _ *rand.Rand) error {
	if _, err := c.Admin.ExecContext(context.WithoutCancel(ctx), failingSQL); err != nil {
		return fmt.Errorf("fault: %w", err)
	}

	<-ctx.Done()

	if _, err := c.Admin.ExecContext(context.WithoutCancel(ctx), succeedingSQL); err != nil {
		return fmt.Errorf("fault: %w", err)
	}

	var failures int64

	err := c.Admin.QueryRowContext(context.WithoutCancel(ctx),
		`SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM audit.failures`).Scan(&failures)
	if err != nil {
		return fmt.Errorf("fault: %w", err)
	}

	c.Injected.Add(failures)

	return nil
}
