// Package mutant breaks the library on purpose, in a copy of its source, to see whether
// the suite notices. The library itself knows nothing of it.
package mutant

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// Mutant is one way to get the protocol wrong.
type Mutant struct {
	Name string
	// Edits are made together: one rule may be kept in several places.
	Edits []Edit
	// Fault is the one under which it shows.
	Fault string
	// Expect are the oracles of which at least one must complain.
	Expect []oracle.Name
	// Flags are what the suite needs besides to run that fault.
	Flags []string
}

// Edit replaces Old, which is found once in File, by New.
type Edit struct{ File, Old, New string }

const (
	transition = "internal/store/transition.go"
	acquire    = "internal/store/acquire.go"
	claim      = "internal/store/claim.go"
	release    = "internal/store/release.go"
	renew      = "internal/store/renew.go"
	guard      = "internal/store/guard.go"
	grants     = "internal/store/grant.go"
	role       = "verify/internal/cluster/role.go"
	listener   = "internal/listen/listener.go"
	waiting    = "internal/line/waiter.go"

	judging   = "internal/store/judge.go"
	functions = "internal/store/functionbodies.go"
	elections = "election_run.go"
	all       = "internal/store/all.go"
	slots     = "internal/store/slots.go"
)

// All lists the mutants.
func All() []Mutant {
	return []Mutant{
		{
			Name: "no generation check on renew",
			Edits: []Edit{{
				renew,
				"changeMany(sqlRenewOnce, sqlStillHeld, ",
				"changeMany(sqlRenewOnce, `{generation} {>} 0 AND l.expires_at {>} {now}`, ",
			}},
			Fault:  "net-late",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			Name: "no generation check on release",
			Edits: []Edit{
				{
					release,
					"sqlOfGeneration+sqlSeen,\n		`{notify}, CASE WHEN",
					"`{generation} {>} 0`+sqlSeen,\n		`{notify}, CASE WHEN",
				},
				{release, "changeMany(sqlReleaseOnce, sqlOfGeneration, ", "changeMany(sqlReleaseOnce, `{generation} {>} 0`, "},
				{release, "       AND ((l.lock_id, l.generation) {=} ANY (SELECT r.lock_id, r.generation FROM {requests} AS r ({columns}))) IS TRUE\n", ""},
			},
			Fault:  "net-late",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			// What a halted server finds in its sockets when it goes on is late by more than a lease.
			Name: "renewal revives a lease",
			Edits: []Edit{{
				renew,
				"changeMany(sqlRenewOnce, sqlStillHeld, ",
				"changeMany(sqlRenewOnce, sqlOfGeneration, ",
			}},
			Fault:  "server-stop",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			Name: "local deadline counted from the reply",
			Edits: []Edit{{
				"internal/store/ask.go",
				"	if err != nil {\n		a.rows, a.err, a.outcome = nil, err, judge(err, native)\n",
				"	a.sent = time.Now()\n	if err != nil {\n		a.rows, a.err, a.outcome = nil, err, judge(err, native)\n",
			}},
			Fault:  "net-late-hole",
			Expect: []oracle.Name{oracle.Beliefs},
		},
		{
			// The guard is the one statement that runs in a transaction of somebody else's.
			Name: "now() in a long transaction",
			Edits: []Edit{{
				guard,
				"   AND l.expires_at {>} {now}\n   FOR SHARE`",
				"   AND l.expires_at {>} pg_catalog.now()\n   FOR SHARE`",
			}},
			Fault:  "writer-stop",
			Expect: []oracle.Name{oracle.Linearizability},
		},
		{
			Name: "rows deleted on release",
			Edits: []Edit{
				{
					// It asks for a right that the clients don't have.
					role,
					"GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO ` + clientRole",
					"GRANT SELECT, INSERT, UPDATE, DELETE ON pglocker.lock_statuses TO ` + clientRole",
				},
				{
					release,
					"	one: change(with(sqlFreed, \"{until}\", sqlAfterHold), sqlOfGeneration+sqlSeen,\n		`{notify}, CASE WHEN {hold} {>} 0 THEN {durable} ELSE {lazy} END`),\n",
					"	one: \"DELETE FROM {table} AS l WHERE l.lock_id {=} {lock_id} AND \" + sqlOfGeneration + sqlSeen +\n" +
						"		\" RETURNING {notify}, CASE WHEN {hold} {>} 0 THEN {durable} ELSE {lazy} END\",\n",
				},
				{
					release,
					"	many:    changeMany(sqlReleaseOnce, sqlOfGeneration, \"\", with(sqlFreed, \"{until}\", `{clock}`), `{notify}, r.n`),\n",
					"	many:    with(sqlFind, \"{once}\", sqlReleaseOnce, \"{where}\", sqlOfGeneration) +\n" +
						"		\" DELETE FROM {table} AS l USING found AS r, c WHERE l.ctid {=} r.row_version AND l.tableoid {=} r.part RETURNING {notify}, r.n\",\n",
				},
			},
			Fault:  "none",
			Expect: []oracle.Name{oracle.Tokens},
		},
		{
			// All statements that grant or renew take it from there.
			Name: "grants with synchronous_commit off",
			Edits: []Edit{{
				transition,
				"THEN pg_catalog.set_config('synchronous_commit', 'on', true) END`",
				"THEN pg_catalog.set_config('synchronous_commit', 'off', true) END`",
			}},
			Fault:  "server-kill",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			// A commit of somebody else's mostly flushes it a moment later.
			Name: "renewals with synchronous_commit off",
			Edits: []Edit{{
				renew,
				"sqlRenewOnce = `{now} AS now, {durable} AS durable`",
				"sqlRenewOnce = `{now} AS now, pg_catalog.set_config('synchronous_commit', 'off', true) AS durable`",
			}},
			Fault:  "server-kill",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			// What is read after the rows says whether they were committed.
			Name: "grant counted on the first row of RETURNING",
			Edits: []Edit{{
				"internal/store/scan.go",
				"	err = rows.Err()\n	if closeErr := rows.Close(); err == nil {\n		err = closeErr\n	}\n",
				"	err = rows.Err()\n	if closeErr := rows.Close(); err == nil {\n		err = closeErr\n	}\n\n" +
					"	if len(scanned) > 0 {\n		err = nil\n	}\n",
			}},
			Fault:  "commit-fails",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			// Requests that go alone and those that go with others end up there.
			Name: "unknown acquire reported as free",
			Edits: []Edit{{
				"internal/store/retry.go",
				"a.err = fmt.Errorf(\"%w: %w\", ErrUnknownOutcome, a.err)",
				"a.outcome = refused",
			}},
			Fault:  "net-one-way",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			// Leases by hand: an Unlock goes on asking.
			Name: "unknown release reported as refused",
			Edits: []Edit{
				{release, "	\"context\"\n", "	\"context\"\n	\"fmt\"\n"},
				{
					release,
					"			if doubt != nil {\n				return Result{}, doubt\n",
					"			if doubt != nil {\n				return Result{}, fmt.Errorf(\"pglocker: refused: %v\", doubt)\n",
				},
				{
					release,
					"		if doubt != nil {\n			return Result{}, doubt\n		}\n\n		if err",
					"		if doubt != nil {\n			return Result{}, fmt.Errorf(\"pglocker: refused: %v\", doubt)\n		}\n\n		if err",
				},
			},
			Fault:  "net-one-way",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			Name:   "guard as FOR KEY SHARE",
			Edits:  []Edit{{guard, "   FOR SHARE`", "   FOR KEY SHARE`"}},
			Fault:  "writer-stop",
			Expect: []oracle.Name{oracle.Fencing},
		},
		{
			Name: "wake-up sent before the commit",
			Edits: []Edit{
				{
					transition,
					"THEN pg_catalog.pg_notify('{channel}', l.lock_id) END IS NOT NULL)",
					"THEN true END IS NOT NULL)",
				},
				{
					release,
					"	for {\n		a := lane.write(ctx, req, alone)\n",
					"	if sh.full {\n		_, _ = s.handle.db.ExecContext(ctx, \"SELECT pg_notify('\"+s.table.Channel()+\"', $1::text)\", id)\n	}\n\n" +
						"	for {\n		a := lane.write(ctx, req, alone)\n",
				},
			},
			Fault:  "wake-up",
			Expect: []oracle.Name{oracle.Healing},
		},
		{
			// A waiter that thinks that it would hear of a release sleeps until it does.
			Name: "waiters left to a listener that is gone",
			Edits: []Edit{
				{
					listener,
					"		if ctx.Err() != nil {\n			return\n		}\n\n		l.proven.Store(false)\n",
					"		if ctx.Err() != nil || l.proven.Load() {\n			return\n		}\n\n",
				},
				{waiting, "		poll = markEvery\n", "		return time.Hour\n"},
			},
			Fault:  "backend-terminate",
			Expect: []oracle.Name{oracle.Healing},
		},
		{
			// An attempt that arrives when its request has been granted another, and has given it
			// up, brings a grant that can't be told from that one, and so is nobody's.
			Name:   "asked again under the same name",
			Edits:  []Edit{{grants, "	g.owner = fmt.Sprintf(\"%s-%d\", g.first, g.renamed+1)\n", ""}},
			Fault:  "request-late",
			Expect: []oracle.Name{oracle.Healing},
		},
		{
			// A pooler that loses its connection to the server says so in place of the reply.
			Name: "an error in place of a reply taken for a refusal",
			Edits: []Edit{
				{judging, "	case \"FATAL\", \"PANIC\": // the server ended the session\n", "	case \"none\":\n"},
				{
					judging,
					"\"08\", \"58\", \"57P\", codeCompletionUnknown, codeInternalError, codeIdleInTransaction,\n		codeTransactionTimeout)",
					"\"08\", \"58\", \"57P\", codeCompletionUnknown)",
				},
			},
			Fault:  "reply-forged",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			Name: "a timeout of the role ends a wait",
			Edits: []Edit{{
				judging,
				"\"53\", codeLockNotAvailable, codeQueryCanceled, codeCannotConnectNow)",
				"\"53\", codeCannotConnectNow)",
			}},
			Fault:  "role-timeouts",
			Expect: []oracle.Name{oracle.Bearing},
		},
		{
			Name: "no other connection tried where one is read-only",
			Edits: []Edit{{
				judging,
				"codeReadOnlyTransaction, codeFailedTransaction)",
				"codeFailedTransaction)",
			}},
			Fault:  "reader-in-pool",
			Expect: []oracle.Name{oracle.Bearing},
		},
		{
			// A pooler may run them with what another client had parsed.
			Name:   "arguments sent apart by a driver that isn't known",
			Edits:  []Edit{{"internal/store/driver.go", "	if !w.pgx || !asItIs && !isASCII(args) {\n", "	if s.pq {\n"}},
			Fault:  "pooler",
			Expect: []oracle.Name{oracle.Bearing, oracle.Linearizability},
		},
		{
			// Whoever may create in a schema of the search path owns what has no exact match.
			Name: "an operator left to the search path",
			Edits: []Edit{{
				"internal/store/qualify.go",
				"		pairs = append(pairs, \"{\"+op+\"}\", \"OPERATOR(pg_catalog.\"+op+\")\")\n",
				"		if op == \"*\" {\n			pairs = append(pairs, \"{*}\", op)\n\n			continue\n		}\n\n" +
					"		pairs = append(pairs, \"{\"+op+\"}\", \"OPERATOR(pg_catalog.\"+op+\")\")\n",
			}},
			Fault:  "hostile-schema",
			Expect: []oracle.Name{oracle.Beliefs, oracle.Linearizability, oracle.Bearing},
		},
		{
			Name:   "a renewal keeps foreign keys off",
			Edits:  []Edit{{"internal/store/render.go", "	return \"FOR NO KEY UPDATE\"\n", "	return \"FOR UPDATE\"\n"}},
			Fault:  "rows-referenced",
			Expect: []oracle.Name{oracle.Bearing},
		},
		{
			Name: "one refused row costs all leases that are renewed with it",
			Edits: []Edit{{
				"internal/keepalive/answer.go",
				"			case current && divides:\n",
				"			case current && divides && len(a.leases) == 0:\n",
			}},
			Fault:  "row-refused",
			Expect: []oracle.Name{oracle.Bearing},
		},
		{
			Name: "one refused row costs all requests that are sent with it",
			Edits: []Edit{{
				judging,
				"	return sqlState(err) != \"\" && !lostName(err) && !elsewhere(err) && !stalePlan(err)\n}",
				"	return hasState(err, \"22\")\n}",
			}},
			Fault:  "row-refused",
			Expect: []oracle.Name{oracle.Bearing},
		},
		{
			Name: "believed for as long as was asked for",
			Edits: []Edit{{
				"internal/keepalive/term.go",
				"	t.Short = min(max(t.TTL-lease, 0), t.TTL)\n",
				"	t.Short = 0 * lease\n",
			}},
			Fault:  "leases-shortened",
			Expect: []oracle.Name{oracle.Beliefs},
		},
		{
			Name: "lease granted before its end",
			Edits: []Edit{
				{acquire, "`l.expires_at {<=} {now}`", "`l.expires_at {<=} ({now} {+} interval '50 ms')`"},
				{
					claim,
					"FROM (SELECT {now} AS now OFFSET 0) AS n\n        OFFSET 0) AS c",
					"FROM (SELECT {now} {+} interval '50 ms' AS now OFFSET 0) AS n\n        OFFSET 0) AS c",
				},
				{
					claim,
					"FROM (SELECT {now} AS now OFFSET 0) AS n\n), found AS",
					"FROM (SELECT {now} {+} interval '50 ms' AS now OFFSET 0) AS n\n), found AS",
				},
			},
			Fault:  "none",
			Expect: []oracle.Name{oracle.Linearizability, oracle.Beliefs},
		},
		{
			// What a halted server finds in its sockets when it goes on is late by more than a lease.
			Name: "renew_lock revives a lease",
			Edits: []Edit{
				{
					functions,
					"AND ` + indent(5, sqlStillHeld) + `\n        FOR NO KEY UPDATE;",
					"AND ` + sqlOfGeneration + `\n        FOR NO KEY UPDATE;",
				},
				{functions, "       AND l.expires_at {>} v.now -- it may have ended in the wait for the row\n", ""},
			},
			Fault:  "server-stop",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			Name: "an election that leads on after its lease",
			Edits: []Edit{{
				elections,
				"leading, resign := context.WithCancelCause(lock.Context())",
				"leading, resign := context.WithCancelCause(context.WithoutCancel(lock.Context()))",
			}},
			Fault:  "net-late-hole",
			Expect: []oracle.Name{oracle.Beliefs},
		},
		{
			Name: "LockAll grants what it can get",
			Edits: []Edit{
				{all, "text != \"\" && !again {", "text == \"none\" && !again {"},
				{all, "pg_catalog.count(*) {=} pg_catalog.cardinality({ids}) AND pg_catalog.bool_and(", "pg_catalog.bool_or("},
				{
					all,
					"       AND (SELECT pg_catalog.array_agg(f.version ORDER BY f.version) FROM found AS f) {=} (SELECT seen.versions FROM seen)\n",
					"       AND l.expires_at {<=} {clock}\n",
				},
				{all, "	case len(res.Grants) < len(ids):\n", "	case len(res.Grants) < 0*len(ids):\n"},
			},
			Fault:  "none",
			Expect: []oracle.Name{oracle.Recipes},
		},
		{
			// Requests that wait for a locked gate have all seen the same slots.
			Name:   "slots granted by what was free before the wait for their gate",
			Edits:  []Edit{{slots, "       AND l.expires_at {=} t.granted_last\n       AND t.current\n", "       AND t.current\n"}},
			Fault:  "rows-locked",
			Expect: []oracle.Name{oracle.Beliefs, oracle.Linearizability, oracle.Recipes},
		},
		{
			Name: "one permit more than there are",
			Edits: []Edit{
				{slots, "       AND (t.busy {+} t.want) {<=} t.permits\n       AND t.usable", "       AND (t.busy {+} t.want) {<=} (t.permits {+} 1)\n       AND t.usable"},
				{
					slots,
					"WHERE (t.busy {+} (t.checked {-} f.checked) {+} t.want) {<=} t.permits\n",
					"WHERE (t.busy {+} (t.checked {-} f.checked) {+} t.want) {<=} (t.permits {+} 1)\n",
				},
				{slots, "t.permits {-} t.busy {-} (t.checked", "(t.permits {+} 1) {-} t.busy {-} (t.checked"},
			},
			Fault:  "none",
			Expect: []oracle.Name{oracle.Beliefs, oracle.Linearizability, oracle.Recipes},
		},
		{
			Name: "one permit more on three columns",
			Edits: []Edit{
				{slots, "       AND (t.busy {+} t.want) {<=} t.permits\n       AND t.usable", "       AND (t.busy {+} t.want) {<=} (t.permits {+} {six}0{three}1{end})\n       AND t.usable"},
				{
					slots,
					"WHERE (t.busy {+} (t.checked {-} f.checked) {+} t.want) {<=} t.permits\n",
					"WHERE (t.busy {+} (t.checked {-} f.checked) {+} t.want) {<=} (t.permits {+} {six}0{three}1{end})\n",
				},
				{slots, "t.permits {-} t.busy {-} (t.checked", "(t.permits {+} {six}0{three}1{end}) {-} t.busy {-} (t.checked"},
			},
			Fault:  "none",
			Expect: []oracle.Name{oracle.Beliefs, oracle.Linearizability, oracle.Recipes},
		},
		{
			// Other clients go by more permits.
			Name:   "a slot handed over though too many are held",
			Edits:  []Edit{{"internal/store/slotshand.go", "                       AND t.held {<=} r.permits\n", ""}},
			Fault:  "none",
			Expect: []oracle.Name{oracle.Beliefs, oracle.Linearizability, oracle.Recipes},
		},
		{
			Name: "a writer that ignores readers",
			Edits: []Edit{{
				slots,
				"                ELSE 1\n           END AS weight,",
				"                WHEN {writes} {=} 1 THEN 0\n                ELSE 1\n           END AS weight,",
			}},
			Fault:  "none",
			Expect: []oracle.Name{oracle.Beliefs, oracle.Linearizability, oracle.Recipes},
		},
		{
			Name: "a pruned lock begins anew",
			Edits: []Edit{{
				"internal/store/create.go",
				"`{lock_id}, greatest(2, {floor}, {above}), ",
				"`{lock_id}, greatest(2, {floor}), ",
			}},
			Fault:  "rows-pruned",
			Expect: []oracle.Name{oracle.Audit, oracle.Tokens},
		},
		{
			Name:   "floor left out",
			Edits:  []Edit{{transition, "::bit(32)::bigint) {-} 1) {<<} 40)", "::bit(32)::bigint) {*} 0) {<<} 40)"}},
			Fault:  "failover-async",
			Expect: []oracle.Name{oracle.Tokens},
			Flags:  []string{"-ha"},
		},
		{
			Name: "grants that don't wait for the standby",
			Edits: []Edit{{
				transition,
				"THEN pg_catalog.set_config('synchronous_commit', 'on', true) END`",
				"THEN pg_catalog.set_config('synchronous_commit', 'local', true) END`",
			}},
			Fault:  "failover-sync",
			Expect: []oracle.Name{oracle.Audit, oracle.Beliefs},
			Flags:  []string{"-ha"},
		},
	}
}

// apply returns the files that the mutant changes, with their edits made. It fails where
// the library no longer has what is to be broken.
func (m Mutant) apply(source string) (map[string]string, error) {
	files := make(map[string]string)

	for _, e := range m.Edits {
		text, ok := files[e.File]
		if !ok {
			original, err := os.ReadFile(filepath.Join(source, filepath.FromSlash(e.File)))
			if err != nil {
				return nil, err
			}

			text = string(original)
		}

		if found := strings.Count(text, e.Old); found != 1 {
			return nil, fmt.Errorf("%s has this %d times, want once:\n%s", e.File, found, e.Old)
		}

		files[e.File] = strings.Replace(text, e.Old, e.New, 1)
	}

	return files, nil
}
