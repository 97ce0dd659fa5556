-- The table of github.com/ismurov/pglocker, as MigrateDB makes it.
-- docs/protocol.md says what the columns mean.

CREATE SCHEMA IF NOT EXISTS pglocker;

CREATE TABLE IF NOT EXISTS pglocker.lock_statuses (
    lock_id         TEXT COLLATE "C" PRIMARY KEY,
    generation      BIGINT NOT NULL,      -- the fencing token
    expires_at      TIMESTAMPTZ NOT NULL, -- held while this is ahead of clock_timestamp()
    owner           TEXT,                 -- who holds it
    acquired_at     TIMESTAMPTZ,          -- since when
    contended_until TIMESTAMPTZ           -- somebody waits for it, until then at least
);

-- For a table that was made with the first three columns only.
ALTER TABLE pglocker.lock_statuses ADD COLUMN IF NOT EXISTS owner TEXT;
ALTER TABLE pglocker.lock_statuses ADD COLUMN IF NOT EXISTS acquired_at TIMESTAMPTZ;
ALTER TABLE pglocker.lock_statuses ADD COLUMN IF NOT EXISTS contended_until TIMESTAMPTZ;

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
