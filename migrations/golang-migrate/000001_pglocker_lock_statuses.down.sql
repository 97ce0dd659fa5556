-- Without the table the tokens of all locks start again, below those that were issued.
DROP TABLE IF EXISTS pglocker.lock_statuses;
