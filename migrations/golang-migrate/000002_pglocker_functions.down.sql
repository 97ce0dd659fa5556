DROP FUNCTION IF EXISTS "pglocker"."acquire_lock" CASCADE;
DROP FUNCTION IF EXISTS "pglocker"."renew_lock" CASCADE;
DROP FUNCTION IF EXISTS "pglocker"."release_lock" CASCADE;
DROP FUNCTION IF EXISTS "pglocker"."assert_held" CASCADE;
