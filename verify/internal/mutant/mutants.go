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
	statements = "internal/store/statements.go"
	shape      = "internal/store/shape.go"
	store      = "internal/store/store.go"
	verbs      = "internal/store/verbs.go"
	role       = "verify/internal/cluster/role.go"
	listener   = "internal/listen/listener.go"
	waiting    = "internal/line/waiter.go"
	grants     = "internal/store/grant.go"

	storeErrors = "internal/store/errors.go"
)

// All lists the mutants.
func All() []Mutant {
	return []Mutant{
		{
			Name: "no generation check on renew",
			Edits: []Edit{{
				statements,
				"   AND l.generation {=} r.generation\n                       AND l.expires_at {>} {now}\n                       {lock_expiry}",
				"   AND r.generation > 0\n                       AND l.expires_at {>} {now}\n                       {lock_expiry}",
			}},
			Fault:  "net-late",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			Name: "no generation check on release",
			Edits: []Edit{
				{
					statements,
					"   AND l.generation {=} $2::bigint{seen}\nRETURNING {notify}",
					"   AND $2::bigint > 0{seen}\nRETURNING {notify}",
				},
				{
					statements,
					"AS r ({columns}, n),\n           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version\n" +
						"                      FROM {table} AS l\n                     WHERE l.lock_id {is} r.lock_id\n" +
						"                       AND l.generation {=} r.generation\n                       {lock} SKIP LOCKED) AS l\n" +
						")\nUPDATE {table} AS l\n   SET generation = greatest(l.generation {+} 1, c.floor),\n       expires_at = c.now{optional}",
					"AS r ({columns}, n),\n           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version\n" +
						"                      FROM {table} AS l\n                     WHERE l.lock_id {is} r.lock_id\n" +
						"                       AND r.generation > 0\n                       {lock} SKIP LOCKED) AS l\n" +
						")\nUPDATE {table} AS l\n   SET generation = greatest(l.generation {+} 1, c.floor),\n       expires_at = c.now{optional}",
				},
			},
			Fault:  "net-late",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			// What a halted server finds in its sockets when it goes on is late by more than a lease.
			Name: "renewal revives a lease",
			Edits: []Edit{{
				statements,
				"   AND l.generation {=} r.generation\n                       AND l.expires_at {>} {now}\n                       {lock_expiry}",
				"   AND l.generation {=} r.generation\n                       {lock_expiry}",
			}},
			Fault:  "server-stop",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			Name: "local deadline counted from the reply",
			Edits: []Edit{{
				store,
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
				statements,
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
					"GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses",
					"GRANT SELECT, INSERT, UPDATE, DELETE ON pglocker.lock_statuses",
				},
				{
					statements,
					"UPDATE {table} AS l\n   SET generation = {next},\n" +
						"       expires_at = {now} {+} ($3::bigint {*} {us}){optional}\n",
					"DELETE FROM {table} AS l\n",
				},
				{
					statements,
					"UPDATE {table} AS l\n   SET generation = greatest(l.generation {+} 1, c.floor),\n" +
						"       expires_at = c.now{optional}\n  FROM held AS r, c\n",
					"DELETE FROM {table} AS l\n USING held AS r, c\n",
				},
			},
			Fault:  "none",
			Expect: []oracle.Name{oracle.Tokens},
		},
		{
			// All statements that grant or renew take it from there.
			Name: "grants with synchronous_commit off",
			Edits: []Edit{{
				statements,
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
				statements,
				"    SELECT {durable} AS durable\n), due AS MATERIALIZED (",
				"    SELECT pg_catalog.set_config('synchronous_commit', 'off', true) AS durable\n), due AS MATERIALIZED (",
			}},
			Fault:  "server-kill",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			// What is read after the rows says whether they were committed.
			Name: "grant counted on the first row of RETURNING",
			Edits: []Edit{{
				store,
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
				store,
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
				{
					verbs,
					"			if doubt != nil {\n				return Result{}, doubt\n",
					"			if doubt != nil {\n				return Result{}, fmt.Errorf(\"pglocker: refused: %v\", doubt)\n",
				},
				{
					verbs,
					"		if doubt != nil {\n			return Result{}, doubt\n		}\n\n		if err",
					"		if doubt != nil {\n			return Result{}, fmt.Errorf(\"pglocker: refused: %v\", doubt)\n		}\n\n		if err",
				},
			},
			Fault:  "net-one-way",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			Name:   "guard as FOR KEY SHARE",
			Edits:  []Edit{{statements, "   FOR SHARE`", "   FOR KEY SHARE`"}},
			Fault:  "writer-stop",
			Expect: []oracle.Name{oracle.Fencing},
		},
		{
			Name: "wake-up sent before the commit",
			Edits: []Edit{
				{
					shape,
					"\" THEN pg_catalog.pg_notify('\"+table.Channel()+\"', l.lock_id) END IS NOT NULL)\"",
					"\" THEN true END IS NOT NULL)\"",
				},
				{
					verbs,
					"	for {\n		a := s.lanes.release.write(ctx, req, alone)\n",
					"	if sh.full {\n		_, _ = s.db.ExecContext(ctx, \"SELECT pg_notify('\"+s.table.Channel()+\"', $1::text)\", id)\n	}\n\n" +
						"	for {\n		a := s.lanes.release.write(ctx, req, alone)\n",
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
				{storeErrors, "provesNothing(code) || fatal(err) {", "provesNothing(code) {"},
				{
					storeErrors,
					"	case codeCompletionUnknown, codeInternalError, codeIdleInTransaction, codeTransactionTimeout:\n",
					"	case codeCompletionUnknown:\n",
				},
			},
			Fault:  "reply-forged",
			Expect: []oracle.Name{oracle.Audit},
		},
		{
			Name: "a timeout of the role ends a wait",
			Edits: []Edit{{
				storeErrors,
				"	case codeLockNotAvailable, codeQueryCanceled, codeCannotConnectNow:\n",
				"	case codeCannotConnectNow:\n",
			}},
			Fault:  "role-timeouts",
			Expect: []oracle.Name{oracle.Bearing},
		},
		{
			Name: "no other connection tried where one is read-only",
			Edits: []Edit{{
				storeErrors,
				"	case codeReadOnlyTransaction, codeFailedTransaction:\n		return true\n",
				"	case codeFailedTransaction:\n		return true\n",
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
			Edits:  []Edit{{"internal/store/identity.go", "	return \"FOR NO KEY UPDATE\"\n", "	return \"FOR UPDATE\"\n"}},
			Fault:  "rows-referenced",
			Expect: []oracle.Name{oracle.Bearing},
		},
		{
			Name: "one refused row costs all leases that are renewed with it",
			Edits: []Edit{{
				"internal/store/renew.go",
				"func Divides(err error) bool {\n",
				"func Divides(err error) bool {\n	if err != nil {\n		return false\n	}\n\n",
			}},
			Fault:  "row-refused",
			Expect: []oracle.Name{oracle.Bearing},
		},
		{
			Name: "one refused row costs all requests that are sent with it",
			Edits: []Edit{{
				storeErrors,
				"	return !elsewhere(err) && !stalePlan(err)\n}",
				"	return hasClass(sqlState(err), \"22\")\n}",
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
				{
					statements,
					" WHERE l.lock_id {is} $1\n   AND l.expires_at {<=} {now}\nRETURNING {row}, {durable}`",
					" WHERE l.lock_id {is} $1\n   AND l.expires_at {<=} ({now} {+} interval '50 ms')\nRETURNING {row}, {durable}`",
				},
				{
					statements,
					"AND l.expires_at {<=} {now}\n                       {lock} SKIP LOCKED) AS l\n)\nUPDATE",
					"AND l.expires_at {<=} ({now} {+} interval '50 ms')\n                       {lock} SKIP LOCKED) AS l\n)\nUPDATE",
				},
				{
					statements,
					"AND l.expires_at {<=} {now}\n                       {lock} SKIP LOCKED) AS l\n), got AS",
					"AND l.expires_at {<=} ({now} {+} interval '50 ms')\n                       {lock} SKIP LOCKED) AS l\n), got AS",
				},
				{
					statements,
					"       AND l.expires_at {<=} {now}\n    RETURNING l.*",
					"       AND l.expires_at {<=} ({now} {+} interval '50 ms')\n    RETURNING l.*",
				},
				{
					statements,
					"FROM (SELECT {now} AS now OFFSET 0) AS n\n        OFFSET 0) AS c",
					"FROM (SELECT {now} {+} interval '50 ms' AS now OFFSET 0) AS n\n        OFFSET 0) AS c",
				},
				{
					statements,
					"FROM (SELECT {now} AS now OFFSET 0) AS n\n), found AS",
					"FROM (SELECT {now} {+} interval '50 ms' AS now OFFSET 0) AS n\n), found AS",
				},
			},
			Fault:  "none",
			Expect: []oracle.Name{oracle.Linearizability, oracle.Beliefs},
		},
		{
			Name:   "floor left out",
			Edits:  []Edit{{statements, "::bit(32)::bigint) {-} 1) {<<} 40)", "::bit(32)::bigint) {*} 0) {<<} 40)"}},
			Fault:  "failover-async",
			Expect: []oracle.Name{oracle.Tokens},
			Flags:  []string{"-ha"},
		},
		{
			Name: "grants that don't wait for the standby",
			Edits: []Edit{{
				statements,
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
