-- The table of github.com/ismurov/pglocker, as MigrateDB makes it.
-- docs/protocol.md says what the columns mean. The names of types are written so that no
-- schema of the search_path can put others in their place.

CREATE SCHEMA IF NOT EXISTS pglocker;

CREATE TABLE IF NOT EXISTS pglocker.lock_statuses (
    lock_id         pg_catalog.text COLLATE pg_catalog."C" PRIMARY KEY,
    generation      BIGINT NOT NULL,                   -- the fencing token
    expires_at      TIMESTAMP WITH TIME ZONE NOT NULL, -- held while this is ahead of clock_timestamp()
    owner           pg_catalog.text,                   -- who holds it
    acquired_at     TIMESTAMP WITH TIME ZONE,          -- since when
    contended_until TIMESTAMP WITH TIME ZONE           -- somebody waits for it, until then at least
) USING heap;

-- For a table that was made with the first three columns only.
ALTER TABLE pglocker.lock_statuses ADD COLUMN IF NOT EXISTS owner pg_catalog.text;
ALTER TABLE pglocker.lock_statuses ADD COLUMN IF NOT EXISTS acquired_at TIMESTAMP WITH TIME ZONE;
ALTER TABLE pglocker.lock_statuses ADD COLUMN IF NOT EXISTS contended_until TIMESTAMP WITH TIME ZONE;

-- Room for new versions of a row on its own page, and an autovacuum that comes
-- after a fixed number of dead rows: updates stay HOT and the table stays small.
ALTER TABLE pglocker.lock_statuses SET (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0
);

---- create above / drop below ----

-- Without the table the tokens of all locks start again, below those that were issued.
DROP TABLE IF EXISTS pglocker.lock_statuses;
