package fault

import (
	"context"
	"math/rand/v2"

	"github.com/ismurov/pglocker/verify/internal/cluster"
)

// shorteningSQL lets a trigger of the table's owner end every lease 250 ms after the statement,
// however long it was to be. A minimum hold is shorter than that.
const shorteningSQL = `
CREATE SEQUENCE audit.shortenings;

CREATE FUNCTION audit.shorten() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.expires_at > clock_timestamp() + interval '250 ms' THEN
        NEW.expires_at := clock_timestamp() + interval '250 ms';
        PERFORM nextval('audit.shortenings');
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER shortening BEFORE INSERT OR UPDATE ON pglocker.lock_statuses
       FOR EACH ROW EXECUTE FUNCTION audit.shorten()`

// unshortenedSQL ends that. To drop the trigger would mean to wait for all transactions.
const unshortenedSQL = `
CREATE OR REPLACE FUNCTION audit.shorten() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NEW;
END $$`

// shortenLeases leaves the trigger alone until its time is over.
func shortenLeases(ctx context.Context, c *cluster.Cluster, _ *rand.Rand) error {
	<-ctx.Done()

	if err := eventually(ctx, c, unshortenedSQL); err != nil {
		return err
	}

	return countSequence(ctx, c, "audit.shortenings")
}
