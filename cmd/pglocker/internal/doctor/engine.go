package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

// sqlEngine reads by what relatives of PostgreSQL, and services that run it, are known: the version of Citus, whether
// it manages the table $1, Aurora's function, and the families of settings.
const sqlEngine = `
SELECT coalesce((SELECT extversion FROM pg_extension WHERE extname = 'citus'), ''),
       EXISTS (SELECT FROM pg_trigger AS g JOIN pg_proc AS f ON f.oid = g.tgfoid
                WHERE g.tgrelid = $1 AND f.proname = 'citus_truncate_trigger'),
       EXISTS (SELECT FROM pg_proc WHERE proname = 'aurora_version' AND pronamespace = 'pg_catalog'::regnamespace),
       coalesce((SELECT string_agg(DISTINCT split_part(name, '.', 1), ',') FROM pg_settings WHERE name LIKE '%.%'), '')`

// traits are what the server shows of its kind.
type traits struct {
	Citus    string
	Managed  bool
	Aurora   bool
	Families string
}

// families are those of the settings of services, and their names.
var families = [][2]string{
	{"alloydb", "AlloyDB"},
	{"neon", "Neon"},
	{"cloudsql", "Cloud SQL"},
	{"azure", "Azure Database for PostgreSQL"},
	{"rds", "Amazon RDS"},
}

// engineOf names the engine. product is what version() says.
func engineOf(product string, m traits) string {
	name := "PostgreSQL"

	switch service := slices.IndexFunc(families, func(f [2]string) bool {
		return slices.Contains(strings.Split(m.Families, ","), f[0])
	}); {
	case strings.HasPrefix(product, "CockroachDB"):
		name = "CockroachDB"
	case strings.Contains(product, "-YB-"):
		name = "YugabyteDB"
	case m.Aurora:
		name = "Amazon Aurora"
	case service >= 0:
		name = families[service][1]
	case !strings.HasPrefix(product, "PostgreSQL "):
		name, _, _ = strings.Cut(product, " ")
	}

	if m.Citus != "" {
		name += " with Citus " + m.Citus
	}

	return name
}

// checkEngine names the engine and the dialect that Lockers speak to it, and what is lost by that.
func checkEngine(ctx context.Context, p *patient, result *Check) error {
	m, err := readRow[traits](ctx, p, sqlEngine, p.oid)
	if err != nil {
		return err
	}

	p.managed = m.Managed
	engine := engineOf(p.product, m)
	result.seen("%s", engine)

	if p.oid == 0 || p.standby || p.locked {
		return nil
	}

	var dialect pglocker.Dialect

	err = p.library(func(db *sql.DB, cfg *pglocker.Config) error {
		locker, err := pglocker.New(db, cfg)
		if err != nil {
			return err
		}

		dialect, err = locker.Dialect(ctx)

		return errors.Join(err, locker.Close(ctx))
	})

	switch {
	case errors.Is(err, pglocker.ErrInvalidTable), errors.Is(err, pglocker.ErrPermissionDenied), errors.Is(err, pglocker.ErrReadOnly):
		return nil // other checks look at that
	case err != nil:
		return err
	}

	result.seen("%s, dialect %s", engine, dialect)

	if p.isPlain = dialect == pglocker.DialectPlain; p.isPlain {
		result.note("The server refuses PostgreSQL's dialect. In the plain one waiters poll, and Semaphore, RWLock and Prune " +
			"return ErrUnsupportedServer (distributed.md).")
	}

	if !p.managed {
		return nil
	}

	return checkNodes(ctx, p, result)
}

// sqlNodes reads the clock, in seconds, and the timeline of each server of a Citus cluster.
const sqlNodes = `
SELECT nodename || ':' || nodeport, success, coalesce(split_part(result, ' ', 1), ''), coalesce(split_part(result, ' ', 2), '')
  FROM run_command_on_all_nodes($$SELECT extract(epoch FROM clock_timestamp()) || ' ' ||
       substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)$$) AS r
  JOIN pg_dist_node AS n USING (nodeid)
 ORDER BY nodeid`

// node is a server of a cluster. Clock is its answer if it has not succeeded.
type node struct {
	Name            string
	Success         bool
	Clock, Timeline string
}

// checkNodes reads the clocks of the servers that have the table's rows.
func checkNodes(ctx context.Context, p *patient, result *Check) error {
	var (
		best []node
		trip time.Duration
	)

	for n := range readings {
		began := time.Now()

		nodes, err := readRows[node](ctx, p, sqlNodes)
		if err != nil {
			return err
		}

		if took := time.Since(began); n == 0 || took < trip {
			best, trip = nodes, took
		}
	}

	judgeNodes(best, trip, p.limits.Offset, result)

	return nil
}

// judgeNodes compares clocks that were read within trip. They may be apart by limit.
func judgeNodes(nodes []node, trip, limit time.Duration, result *Check) {
	var clocks []float64

	for _, n := range nodes {
		clock, err := parseSeconds(n.Clock)
		if !n.Success || err != nil {
			result.find(Warning, "node", fmt.Sprintf("%s doesn't tell its clock and timeline.", n.Name),
				"It is down, or the role may not ask. Locks whose rows are there can't be taken while it is down.",
				"SELECT * FROM run_command_on_all_nodes('SELECT 1');")

			continue
		}

		clocks = append(clocks, clock)
		result.note("%s: timeline %s.", n.Name, strings.TrimLeft(n.Timeline, "0"))
	}

	if len(clocks) < 2 {
		return
	}

	apart := time.Duration((slices.Max(clocks) - slices.Min(clocks)) * float64(time.Second))
	result.note("The clocks of %s are %s ± %s apart.", many(int64(len(clocks)), "server"), span(apart), span(trip))

	if apart-trip > limit {
		result.find(Warning, "clock-skew", fmt.Sprintf("The clocks of two servers are %s ± %s apart.", span(apart), span(trip)),
			"When a shard moves from one to the other, a lock may be granted while its holder believes that it has it.",
			"chronyc tracking  # on each server; or Config.SafetyMargin above that, and TTLs above twice the margin")
	}
}

func parseSeconds(text string) (seconds float64, err error) {
	_, err = fmt.Sscan(text, &seconds)

	return seconds, err
}
