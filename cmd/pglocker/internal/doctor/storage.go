package doctor

import (
	"context"
	"fmt"
	"strings"
)

// sqlStorage lists what is set for the table, or for each of its partitions. What isn't set is NULL. MigrateDB
// leaves settings alone.
const sqlStorage = parts + `
SELECT c.oid::regclass::text, c.relispartition,
       coalesce((SELECT option_value FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_enabled'), 'true')::bool,
       (SELECT option_value FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor')::bigint,
       (SELECT option_value FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_vacuum_scale_factor')::float8,
       (SELECT option_value FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_vacuum_threshold')::bigint
  FROM part JOIN pg_class AS c USING (oid)
 WHERE c.relkind = 'r'
 ORDER BY 1`

const (
	// MigrateDB's own settings are 50, 0 and 1000. These are the worst that pass.
	fullest         = 70
	latestScale     = 0.2
	latestThreshold = 20_000
)

func checkStorage(ctx context.Context, p *patient, result *Check) error {
	type storage struct {
		Table      string
		Part       bool
		Vacuumed   bool
		Fillfactor *int64
		Scale      *float64
		Threshold  *int64
	}

	found, err := readRows[storage](ctx, p, sqlStorage, p.oid)
	if err != nil {
		return err
	}

	result.seen("as pglocker migrate sets it")

	for _, s := range found {
		var (
			sets []string
			seen []string
		)

		if s.Fillfactor != nil && *s.Fillfactor > fullest || s.Fillfactor == nil && s.Part {
			sets = append(sets, "fillfactor = 50")
			seen = append(seen, "fillfactor is "+shown(s.Fillfactor, "100"))
		}

		if s.Scale != nil && *s.Scale > latestScale || s.Threshold != nil && *s.Threshold > latestThreshold || s.Part && s.Threshold == nil {
			sets = append(sets, "autovacuum_vacuum_scale_factor = 0", "autovacuum_vacuum_threshold = 1000")
			seen = append(seen, fmt.Sprintf("autovacuum comes after %s dead rows and %s of the table", shown(s.Threshold, "50"), shown(s.Scale, "0.2")))
		}

		if len(sets) > 0 {
			result.find(Warning, "storage", fmt.Sprintf("Of %s, %s.", s.Table, strings.Join(seen, ", and ")),
				"Updates aren't HOT, or dead rows stay for longer: the table grows, and taking a lock gets slower.",
				fmt.Sprintf("ALTER TABLE %s SET (%s);", s.Table, strings.Join(sets, ", ")))
		}

		if !s.Vacuumed {
			result.find(Warning, "autovacuum-off", "Autovacuum is off for "+s.Table+".",
				"Nothing removes dead rows. Taking a lock gets slower and slower.",
				fmt.Sprintf("ALTER TABLE %s RESET (autovacuum_enabled);\nVACUUM %s;", s.Table, s.Table))
		}
	}

	if len(result.findings) > 0 {
		result.seen("not as pglocker migrate sets it")
	}

	return nil
}

// shown is a value that may not be set.
func shown[T any](value *T, otherwise string) string {
	if value == nil {
		return otherwise
	}

	return fmt.Sprint(*value)
}

// sqlBloat reads what the statistics count, of the table and its partitions. A crash of the server loses them, so the
// planner's count of rows counts too.
const sqlBloat = parts + `
SELECT coalesce(sum(pg_relation_size(c.oid)), 0)::bigint, coalesce(sum(pg_indexes_size(c.oid)), 0)::bigint,
       coalesce(sum(greatest(s.n_live_tup, c.reltuples)), 0)::bigint, coalesce(sum(s.n_dead_tup), 0)::bigint,
       coalesce(sum(s.n_tup_upd), 0)::bigint, coalesce(sum(s.n_tup_hot_upd), 0)::bigint
  FROM part JOIN pg_class AS c USING (oid) LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
 WHERE c.relkind = 'r'`

const (
	// rowBytes is a row with room for its next versions; a bloated table has several times as much for each.
	rowBytes   = 4096
	leastHot   = 0.5
	deadToLive = 2
)

func checkBloat(ctx context.Context, p *patient, result *Check) error {
	type bloat struct{ Size, Indexes, Live, Dead, Updates, Hot int64 }

	b, err := readRow[bloat](ctx, p, sqlBloat, p.oid)
	if err != nil {
		return err
	}

	result.seen("%s, %s, %d dead, with indexes %s", many(b.Live, "row"), size(b.Size), b.Dead, size(b.Size+b.Indexes))

	if b.Dead > p.limits.DeadRows+deadToLive*b.Live {
		result.find(Warning, "dead-rows", fmt.Sprintf("%d dead rows beside %d live ones.", b.Dead, b.Live),
			"Autovacuum doesn't keep up, or something keeps dead rows: see the checks \"vacuum\" and \"storage\".",
			fmt.Sprintf("VACUUM (VERBOSE) %s;  -- it says what it can't remove yet, and why", p.table))
	}

	if b.Size > p.limits.BigTable && b.Size > rowBytes*max(b.Live, 1) {
		result.find(Warning, "bloated", fmt.Sprintf("The table has %s for %s.", size(b.Size), many(b.Live, "row")),
			"Most of it is empty. Locks work; listing and vacuum read all of it.",
			fmt.Sprintf("VACUUM (FULL) %s;  -- it locks the table, so holders may lose locks: in a quiet minute", p.table))
	}

	if hot := float64(b.Hot) / float64(max(b.Updates, 1)); b.Updates > p.limits.Updates && hot < leastHot {
		result.find(Warning, "not-hot", fmt.Sprintf("Only %.0f %% of %d updates were HOT.", 100*hot, b.Updates),
			"Each of the others writes to the index, which grows. An index, a full page or an old transaction is the cause.",
			fmt.Sprintf("-- After the checks \"table\", \"storage\" and \"vacuum\" are ok, count anew:\n"+
				"VACUUM %s;\nSELECT pg_stat_reset_single_table_counters(%s::regclass);", p.table, quoteText(p.table)))
	}

	return nil
}

// size is a number of bytes for people.
func size(bytes int64) string {
	switch {
	case bytes >= 10<<20:
		return fmt.Sprintf("%d MB", bytes>>20)
	case bytes >= 10<<10:
		return fmt.Sprintf("%d kB", bytes>>10)
	}

	return many(bytes, "byte")
}

// sqlPlanned reads what the planner knows of the table, and what there is.
const sqlPlanned = parts + `
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint, coalesce(sum(s.n_live_tup), 0)::bigint,
       coalesce(sum(pg_relation_size(c.oid)), 0)::bigint
  FROM part JOIN pg_class AS c USING (oid) LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
 WHERE c.relkind = 'r'`

const (
	// A smaller table is scanned as fast as its index.
	manyRows  = 20_000
	manyPages = 50 * 8192
	// staleBy is how many times as many rows there are as the planner believes.
	staleBy = 10
)

// checkPlans asks for the plan of a look at one lock, as Guard's. pglocker's other statements keep the planner from
// scanning the table, whatever it believes.
func checkPlans(ctx context.Context, p *patient, result *Check) error {
	type planned struct{ Believed, Live, Size int64 }

	t, err := readRow[planned](ctx, p, sqlPlanned, p.oid)
	if err != nil {
		return err
	}

	plan, err := readList(ctx, p, "EXPLAIN SELECT FROM "+p.table+" WHERE lock_id = 'doctor'")
	if err != nil {
		return err
	}

	result.seen("by the index; %s by the planner's count", many(t.Believed, "row"))

	const means = "pglocker's own statements use the index all the same. Guard, which runs with your settings, and your own " +
		"statements may read the whole table."

	if t.Live > manyRows && t.Live > staleBy*t.Believed {
		result.seen("the statistics are stale")
		result.find(Warning, "statistics", fmt.Sprintf("The planner knows of %d rows, and there are about %d.", t.Believed, t.Live),
			means, fmt.Sprintf("ANALYZE %s;", p.table))
	}

	if strings.Contains(strings.Join(plan, "\n"), "Seq Scan") && t.Size > manyPages {
		result.seen("the whole table is read for one lock")
		result.find(Warning, "seq-scan", "For one lock the planner reads the whole table: "+oneLine(plan[0])+".", means,
			fmt.Sprintf("ANALYZE %s;\nREINDEX TABLE CONCURRENTLY %s;  -- if its index is invalid\n"+
				"-- Is enable_indexscan off, or are cost settings odd? SELECT name, setting, source FROM pg_settings WHERE name ~ '^enable_|_cost$';",
				p.table, p.table))
	}

	return nil
}
