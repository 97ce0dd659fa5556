DROP FUNCTION IF EXISTS pglocker.lock_history CASCADE;
DROP TABLE IF EXISTS pglocker.lock_history;
