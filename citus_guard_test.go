package pglocker_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestCitusGuard: every form of the guard lets a holder's transaction commit, on the worker of the lock and over
// several, keeps the row until then, and refuses a former holder.
func TestCitusGuard(t *testing.T) {
	t.Parallel()

	const scheme = "pglocker_guard"

	db, cfg := newCitusTable(t, scheme)
	locker := newCitusLocker(t, db, cfg)

	// Rows of one lock are on the worker of the lock: the collations must be the same.
	contract.Exec(t, db, "CREATE TABLE pglocker_guard.reports (lock_id TEXT COLLATE \"C\" NOT NULL, body TEXT NOT NULL)")
	contract.Exec(t, db, "SELECT create_distributed_table('pglocker_guard.reports', 'lock_id', colocate_with := 'pglocker_guard.lock_statuses')")
	contract.Exec(t, db, "CREATE TABLE pglocker_guard.elsewhere (id BIGINT NOT NULL)")
	contract.Exec(t, db, "SELECT create_distributed_table('pglocker_guard.elsewhere', 'id')")
	contract.Exec(t, db, "CREATE TABLE pglocker_guard.coordinators (id BIGINT NOT NULL)")

	written := func() int {
		return contract.Query[int](t, db, "SELECT count(*) FROM pglocker_guard.reports") +
			contract.Query[int](t, db, "SELECT count(*) FROM pglocker_guard.elsewhere") +
			contract.Query[int](t, db, "SELECT count(*) FROM pglocker_guard.coordinators")
	}
	free := func(id string) bool {
		return contract.Query[int](t, db, `SELECT count(*) FROM (SELECT FROM pglocker_guard.lock_statuses WHERE lock_id = $1
			FOR NO KEY UPDATE SKIP LOCKED) AS free`, id) == 1
	}

	for _, of := range []string{"Lock", "context", "MultiLock"} {
		take := takes(locker)[of]

		for form, begin := range begins(t, citusURL(t)) {
			writes := []string{
				"INSERT INTO pglocker_guard.reports VALUES ('" + of + form + "', '')",
				"INSERT INTO pglocker_guard.elsewhere SELECT generate_series(1, 100)",
				"INSERT INTO pglocker_guard.coordinators VALUES (1)",
			}
			if form != "Guard, pgx" {
				writes = writes[:1]
			}

			for _, write := range writes {
				held, id := take(t, of+form)
				tx, before := begin(t, ""), written()

				contract.Must(t, tx.guard(held))
				contract.Must(t, tx.exec(write))

				if free(id) {
					t.Errorf("%s, %s: the guard has not locked the row", of, form)
				}

				contract.Must(t, tx.commit())

				if !free(id) || written() == before {
					t.Errorf("%s, %s: after the commit: row free %t, %d rows more", of, form, free(id), written()-before)
				}

				tx = begin(t, "")
				contract.Must(t, tx.exec(write))
				contract.Exec(t, db, "UPDATE pglocker_guard.lock_statuses SET generation = generation + 1 WHERE lock_id = $1", id)

				if err := tx.guard(held); !errors.Is(err, pglocker.ErrLockLost) {
					t.Errorf("%s, %s: a guard after a takeover: %v, want ErrLockLost", of, form, err)
				}

				contract.Must(t, tx.leave())
				contract.Exec(t, db, "UPDATE pglocker_guard.lock_statuses SET expires_at = 'epoch' WHERE true")
			}
		}

		held, _ := take(t, of)
		if err := held.GuardTx(t.Context(), opaque{db}); !errors.Is(err, pglocker.ErrNoTransaction) {
			t.Errorf("%s: a guard without a transaction: %v, want ErrNoTransaction", of, err)
		}
	}
}

// TestCitusGuardForgotten: a transaction that was guarded doesn't commit after the lock's worker has crashed, though
// what it writes is on another one. The worker has forgotten the guard, and may have granted the lock to another. The role
// must be a superuser. Not beside other tests, whose statements would fail.
func TestCitusGuardForgotten(t *testing.T) {
	db, cfg := newCitusTable(t, "pglocker_forgotten")
	locker := newCitusLocker(t, db, cfg)

	contract.Exec(t, db, "CREATE TABLE pglocker_forgotten.elsewhere (id TEXT NOT NULL)")
	contract.Exec(t, db, "SELECT create_distributed_table('pglocker_forgotten.elsewhere', 'id', colocate_with := 'none')")

	worker := func(table, id string) int {
		return contract.Query[int](t, db, `SELECT nodeport FROM citus_shards
			WHERE shardid = get_shard_id_for_distribution_column($1, $2::text)`, table, id)
	}

	var id string
	for n := 0; id == "" || worker(cfg.Scheme+".lock_statuses", id) == worker(cfg.Scheme+".elsewhere", "row"); n++ {
		id = fmt.Sprint("lock ", n)
	}

	held, err := locker.TryLock(t.Context(), id, time.Minute)
	contract.Must(t, err)

	tx, err := db.BeginTx(t.Context(), nil)
	contract.Must(t, err)
	contract.Must(t, held.Guard(t.Context(), tx))
	_, err = tx.ExecContext(t.Context(), "INSERT INTO pglocker_forgotten.elsewhere VALUES ('row')")
	contract.Must(t, err)

	crash(t, ofPort(t, citusURL(t), worker(cfg.Scheme+".lock_statuses", id)))

	if err := tx.Commit(); err == nil {
		t.Error("a transaction committed whose guard was forgotten")
	}

	if n := contract.Query[int](t, db, "SELECT count(*) FROM pglocker_forgotten.elsewhere"); n != 0 {
		t.Errorf("%d rows were written", n)
	}

	contract.Must(t, held.Unlock(t.Context()))
}
