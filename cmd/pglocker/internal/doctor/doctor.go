// Package doctor examines a database that holds locks: the server, its settings, the role, the table, the way
// to it, and the locks. Each check says what it saw. What is wrong becomes a [Finding], with what it means and
// what mends it.
//
// The doctor writes to no table. Its own statements run in read-only transactions, with a short timeout and a
// search_path without other schemas, so nothing that others put into the database is called. Some checks call the
// library, whose statements run as a Locker's do: that of the engine has it grant a lock that doesn't exist, which
// changes no row. The doctor needs no privilege beyond those of the role that it connects as. A check that isn't
// permitted says so, and the others go on. It prints neither passwords nor the text of other sessions' statements.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Severity is how bad a finding is.
type Severity string

const (
	// Warning: locks work, but slower, for now, or with less than is promised.
	Warning Severity = "warning"
	// Error: locks don't work, or soon won't.
	Error Severity = "error"
)

// Finding is one thing that is wrong.
type Finding struct {
	// Name is of this kind of finding, and doesn't change.
	Name string `json:"name"`
	// Check is the check that found it.
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	// Seen is what was seen, Means what follows from it.
	Seen  string `json:"seen"`
	Means string `json:"means"`
	// Mend are statements or commands that mend it, one a line. A line that begins with -- says what to do first, or
	// what else to do.
	Mend string `json:"mend"`
}

// Status is how a check ended.
type Status string

const (
	OK Status = "ok"
	// Warned and Failed: it has findings, the worst of which is a warning or an error.
	Warned Status = "warning"
	Failed Status = "error"
	// Skipped: it could not look.
	Skipped Status = "skipped"
)

// Check is what one check saw.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Seen says in one line what was seen, or why nothing could be.
	Seen string `json:"seen"`
	// Notes are worth knowing, and nothing to mend at once.
	Notes []string `json:"notes,omitempty"`

	findings []Finding
}

// seen says what the check saw.
func (c *Check) seen(format string, args ...any) { c.Seen = fmt.Sprintf(format, args...) }

// note adds a note.
func (c *Check) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

// skip ends the check without having looked.
func (c *Check) skip(format string, args ...any) {
	c.Status = Skipped
	c.seen(format, args...)
}

// find adds a finding.
func (c *Check) find(severity Severity, name, seen, means, mend string) {
	c.findings = append(c.findings, Finding{Name: name, Check: c.Name, Severity: severity, Seen: seen, Means: means, Mend: mend})
}

// Report is what all checks saw.
type Report struct {
	// Database, Role, Server and Table say what was examined.
	Database string    `json:"database"`
	Role     string    `json:"role"`
	Server   string    `json:"server"`
	Table    string    `json:"table"`
	Checks   []Check   `json:"checks"`
	Findings []Finding `json:"findings"`
}

// Count is how many findings are of a severity.
func (r *Report) Count(s Severity) (n int) {
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}

	return n
}

// ExitCode is 2 if there is an error, 1 if there is a warning, and else 0.
func (r *Report) ExitCode() int {
	switch {
	case r.Count(Error) > 0:
		return 2
	case r.Count(Warning) > 0:
		return 1
	}

	return 0
}

// Config says what to examine.
type Config struct {
	// Connect is how to connect.
	Connect *pgx.ConnConfig
	// Schema and Table name the table of the locks.
	Schema, Table string
	// Limits are from when on something is wrong.
	Limits Limits
}

// Limits are from when on something counts as wrong. [DefaultLimits] says why.
type Limits struct {
	LongHeld       time.Duration
	Crashed        time.Duration
	OldTransaction time.Duration
	OldXmin        int64
	Blocker        time.Duration
	DeadRows       int64
	BigTable       int64
	Updates        int64
	Drift          float64
	Offset         time.Duration
	Look           time.Duration
	Connections    float64
	// Patience is how long a check may take.
	Patience time.Duration
}

// DefaultLimits are the limits for a server in use.
func DefaultLimits() Limits {
	return Limits{
		LongHeld:       24 * time.Hour,   // a job that hangs, and renews, is held for as long
		Crashed:        24 * time.Hour,   // leases that ended without a release are counted so far back
		OldTransaction: 10 * time.Minute, // it keeps dead rows: at 100 grants a second, 60,000
		OldXmin:        1_000_000,        // the same, in transactions, where no time is known
		Blocker:        5 * time.Second,  // a transaction on the table; pglocker's take milliseconds
		DeadRows:       10_000,           // autovacuum comes after 1,000, once a minute
		BigTable:       16 << 20,         // a smaller table is no trouble, however much of it is empty
		Updates:        10_000,           // fewer updates say nothing about their kind
		Drift:          0.005,            // of the rate of two clocks; a margin allows a tenth of a TTL
		Offset:         time.Second,      // of two clocks; harmless, but confusing in logs
		Look:           time.Second,      // between two looks at the clocks
		Connections:    0.8,              // of those that the server allows
		Patience:       5 * time.Second,  // a statement has a second less
	}
}

// check is one examination.
type check struct {
	name string
	run  func(context.Context, *patient, *Check) error
	// onTable: it needs the table. onRows: and its rows, on this server.
	onTable, onRows bool
}

// checks are all, in their order. Two looks at clocks and leases are apart: the second is the last.
var checks = []check{
	{name: "connection", run: checkConnection},
	{name: "server", run: checkServer},
	{name: "blockers", run: checkBlockers, onTable: true}, // before those that it would keep waiting
	{name: "engine", run: checkEngine},
	{name: "notifications", run: checkNotifications},
	{name: "table", run: checkTable},
	{name: "migrations", run: checkMigrations, onTable: true},
	{name: "history", run: checkHistory, onTable: true},
	{name: "privileges", run: checkPrivileges, onTable: true},
	{name: "storage", run: checkStorage, onTable: true},
	{name: "bloat", run: checkBloat, onTable: true, onRows: true},
	{name: "plans", run: checkPlans, onTable: true, onRows: true},
	{name: "vacuum", run: checkVacuum},
	{name: "timeouts", run: checkTimeouts},
	{name: "search_path", run: checkSearchPath},
	{name: "durability", run: checkDurability},
	{name: "replication", run: checkReplication},
	{name: "timeline", run: checkTimeline},
	{name: "connections", run: checkConnections},
	{name: "clock", run: checkClock},
	{name: "locks", run: checkLocks, onTable: true},
}

// Run examines the database. An unreachable one is a finding. The error is ctx's, when it ends.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	p := newPatient(cfg)
	defer p.close()

	report := &Report{Checks: []Check{}, Findings: []Finding{}}

	admission := Check{Name: "connection"}
	if err := p.admit(ctx, &admission); err != nil {
		return nil, err
	}

	report.Database, report.Role, report.Server, report.Table = p.database, p.role, p.address, p.table

	if len(admission.findings) > 0 { // the other checks can't run
		report.add(admission)

		return report, nil
	}

	for _, c := range checks {
		result := Check{Name: c.name}
		switch {
		case c.onTable && p.oid == 0:
			result.skip("there is no table")
		case c.onTable && p.locked:
			result.skip("another transaction has the table locked")
		case c.onRows && p.managed:
			result.skip("the rows are on the servers of a Citus cluster: look at each")
		default:
			if err := p.examine(ctx, c, &result); err != nil {
				return nil, err
			}
		}

		report.add(result)
	}

	return report, nil
}

// add adds the result of a check.
func (r *Report) add(c Check) {
	for _, f := range c.findings {
		switch {
		case f.Severity == Error:
			c.Status = Failed
		case c.Status != Failed:
			c.Status = Warned
		}
	}

	if c.Status == "" {
		c.Status = OK
	}

	r.Checks = append(r.Checks, c)
	r.Findings = append(r.Findings, c.findings...)
}

// examine runs one check, which has a time of its own. The error is ctx's, when it ends.
func (p *patient) examine(ctx context.Context, c check, result *Check) error {
	within, cancel := context.WithTimeout(ctx, p.limits.Patience+p.limits.Look)
	defer cancel()

	err := c.run(within, p, result)

	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
	case sqlState(err) == insufficientPrivilege:
		if len(result.findings) == 0 {
			result.skip("not permitted: %s", message(err))
		} else {
			result.note("The rest wasn't permitted: %s.", message(err))
		}
	case slow(err):
		result.find(Warning, "no-answer", fmt.Sprintf("The check %q got no answer within %s.", c.name, p.limits.Patience),
			"The server is overloaded, or another transaction has locked what the check reads.",
			"-- Run the doctor again. If it persists, look at the check \"blockers\".")
	default:
		result.find(Warning, "check-failed", fmt.Sprintf("The check %q failed: %s.", c.name, message(err)),
			"What it looks for is not known.", "-- Run the doctor again. If it persists, report it.")
	}

	if result.Seen == "" {
		result.Seen = "see below"
	}

	return nil
}

// The SQLSTATEs that the doctor knows.
const (
	insufficientPrivilege = "42501"
	lockNotAvailable      = "55P03"
	queryCanceled         = "57014"
)

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}

	return ""
}

// slow reports whether a statement was not answered in time.
func slow(err error) bool {
	return sqlState(err) == lockNotAvailable || sqlState(err) == queryCanceled || errors.Is(err, context.DeadlineExceeded) ||
		pgconn.Timeout(err)
}

// message is the text of an error in one line: of the server, where it has one.
func message(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return oneLine(e.Message)
	}

	return oneLine(err.Error())
}
