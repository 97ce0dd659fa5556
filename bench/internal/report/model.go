package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/format"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/stats"
	"github.com/ismurov/pglocker/bench/internal/workload"
)

const (
	// batchLimit is the most requests in one statement of pglocker, renewLimit the most
	// renewals.
	batchLimit = 512
	renewLimit = 1000
	// machineGoroutines is how many goroutines each machine of the predictions has.
	machineGoroutines = 256
)

// point is what pglocker cost at one concurrency.
type point struct {
	goroutines                         int
	rate, statements, wal, fsyncs      float64
	clientSeconds, serverSeconds, took float64 // CPU of a pair; took: its p50, in seconds
}

// model is the CPU time of a server and a client, as a cost of each pair and a cost of each
// statement, fitted to W1 and W2.
type model struct {
	log                                            *result.Log
	cores                                          float64
	points                                         []point
	serverPair, serverStatement                    float64 // seconds
	clientPair, clientStatement                    float64
	flushes                                        float64 // the most per second that were seen in this run
	shared                                         float64 // commits per flush of the floor's connections
	heldStatements, heldServer, heldWAL, heldLocks float64 // W4 with the most locks
}

// newModel returns nil if the run had no W1 or no W2.
func newModel(log *result.Log, cores int, plan workload.Plan) *model {
	m := &model{log: log, cores: float64(cores)}

	add := func(workload, params string, goroutines int) {
		get := func(unit string) float64 {
			return log.Median(result.Key{Workload: workload, Params: params, Contender: contender.NamePglocker}, unit)
		}

		p := point{
			goroutines:    goroutines,
			rate:          get("pairs/s"),
			statements:    get("statements/pair"),
			wal:           get("WAL-B/pair"),
			fsyncs:        get("fsyncs/pair"),
			clientSeconds: get("client-cpu-s/100k-pairs") / 100_000,
			serverSeconds: get("server-cpu-s/100k-pairs") / 100_000,
			took:          get("p50-ns") / 1e9,
		}
		if !math.IsNaN(p.statements) && !math.IsNaN(p.serverSeconds) {
			m.points = append(m.points, p)
		}
	}

	add("W1", "", 1)

	for _, n := range plan.Goroutines {
		add("W2", workload.Goroutines(n), n)
	}

	if len(m.points) < 2 {
		return nil
	}

	var statements, server, client []float64
	for _, p := range m.points {
		statements = append(statements, p.statements)
		server = append(server, p.serverSeconds)
		client = append(client, p.clientSeconds)
	}

	m.serverPair, m.serverStatement = stats.Line(statements, server)
	m.clientPair, m.clientStatement = stats.Line(statements, client)

	for _, w := range []string{"W1", "W2"} {
		for _, params := range log.Params(w) {
			for _, name := range log.Contenders(w) {
				key := result.Key{Workload: w, Params: params, Contender: name}
				if rate := log.Median(key, "pairs/s") * log.Median(key, "fsyncs/pair"); rate > m.flushes {
					m.flushes = rate
				}
			}
		}
	}

	busy := result.Key{Workload: "W2", Params: workload.Goroutines(machineGoroutines), Contender: contender.NameFloor}

	m.shared = log.Median(busy, "statements/pair") / log.Median(busy, "fsyncs/pair")
	if !(m.shared >= 1) {
		m.shared = 1
	}

	if len(plan.Held) > 0 {
		m.heldLocks = float64(plan.Held[len(plan.Held)-1])
		m.heldStatements = m.held(int(m.heldLocks), "statements/s")
		m.heldServer = m.held(int(m.heldLocks), "server-core-%")
		m.heldWAL = m.held(int(m.heldLocks), "WAL-B/s")
	}

	return m
}

func (m *model) held(locks int, unit string) float64 {
	return m.log.Median(result.Key{Workload: "W4", Params: workload.Held(locks), Contender: contender.NamePglockerLock}, unit)
}

// server is the CPU time of a pair on the server, by its number of statements.
func (m *model) server(statements float64) float64 {
	return m.serverPair + m.serverStatement*statements
}

func (m *model) client(statements float64) float64 {
	return m.clientPair + m.clientStatement*statements
}

// Formulas are the fitted costs, in microseconds.
func (m *model) Formulas() string {
	return fmt.Sprintf("server %s + %s · s, client %s + %s · s",
		micros(m.serverPair), micros(m.serverStatement), micros(m.clientPair), micros(m.clientStatement))
}

// Flushes is the highest rate of flushes of all contenders in the run.
func (m *model) Flushes() string { return format.Count(m.flushes) }

// Shared is how many commits shared a flush in the floor's W2.
func (m *model) Shared() string { return format.Figures(m.shared) }

// batchRange is the least and the largest number of statements that a pair should take.
func batchRange(goroutines int) (low, high float64) {
	g := float64(goroutines)
	of := func(requests float64) float64 { return 2 / min(max(requests, 1), batchLimit) }

	return of(g / 2), of(g / 6)
}

// ByConcurrency checks the rules for pairs against W1 and W2.
func (m *model) ByConcurrency() string {
	var rows [][]string

	for _, p := range m.points {
		low, high := batchRange(p.goroutines)
		expected := format.Figures(low)

		if high > low {
			expected += " to " + format.Figures(high)
		}

		rows = append(rows, []string{
			format.Thousands(p.goroutines),
			expected, format.Figures(p.statements),
			format.Figures(p.statements / 2), format.Figures(p.fsyncs),
			format.Figures(m.points[0].wal), format.Figures(p.wal),
			micros(m.server(p.statements)), micros(p.serverSeconds),
			micros(m.client(p.statements)), micros(p.clientSeconds),
		})
	}

	return markdown([]string{
		"goroutines", "statements/pair s", "measured", "fsyncs/pair, s/2 at most", "measured",
		"WAL bytes/pair", "measured", "server CPU/pair", "measured", "client CPU/pair", "measured",
	}, rows)
}

// Checks checks the other rules of the model against W3 to W7.
func (m *model) Checks() string {
	var rows [][]string

	add := func(what, expected string, measured float64, unit string) {
		if !math.IsNaN(measured) {
			rows = append(rows, []string{what, expected, format.Figures(measured) + unit})
		}
	}
	median := func(workload, params, name, unit string) float64 {
		return m.log.Median(result.Key{Workload: workload, Params: params, Contender: name}, unit)
	}

	for _, params := range m.log.Params("W3") {
		of := "W3, " + values(params) + " waiters: "
		add(of+"fsyncs/hand-over", "1, or a little more", median("W3", params, contender.NamePglockerLock, "fsyncs/handover"), "")
		add(of+"statements/hand-over", "1, and some between clients", median("W3", params, contender.NamePglockerLock, "statements/handover"), "")
	}

	for _, params := range m.log.Params("W4") {
		var locks float64
		if _, err := fmt.Sscanf(params, "held=%f", &locks); err != nil {
			continue
		}

		perSecond := math.Ceil(locks/renewLimit) / (contender.TTL / 3).Seconds()
		of := "W4, " + values(params) + " held: "
		add(of+"statements/s", format.Figures(perSecond), m.held(int(locks), "statements/s"), "")
		add(of+"WAL bytes per renewal", "half of a pair's, "+format.Figures(m.points[0].wal/2),
			m.held(int(locks), "WAL-B/s")*(contender.TTL/3).Seconds()/locks, "")
	}

	m.checkTable(add)

	for _, params := range m.log.Params("W6") {
		add("W6, "+values(params)+" pairs: size of the table, over its smallest", "does not grow with the pairs",
			median("W6", params, contender.NamePglocker, "bytes-after")/median("W6", params, contender.NamePglocker, "bytes-smallest"), " ×")
	}

	add("W7: WAL bytes per failed attempt", "0", median("W7", "", contender.NamePglocker, "WAL-B/attempt"), "")

	if len(rows) == 0 {
		return "W3 to W7 were not measured in this run.\n"
	}

	return markdown([]string{"what", "by the model", "measured"}, rows)
}

// checkTable compares the large table of W5 with the small one.
func (m *model) checkTable(add func(what, expected string, measured float64, unit string)) {
	all := m.log.Params("W5")

	for _, small := range all {
		locks, rest, _ := strings.Cut(small, "/")

		for _, large := range all {
			others, same, _ := strings.Cut(large, "/")
			if same != rest || len(others) <= len(locks) {
				continue
			}

			get := func(params, unit string) float64 {
				return m.log.Median(result.Key{Workload: "W5", Params: params, Contender: contender.NamePglocker}, unit)
			}
			of := "W5, " + values(large) + ": "

			add(of+"time of a pair, over that on the small table", "1, more where rows of a batch share no pages",
				get(large, result.NsPerOp)/get(small, result.NsPerOp), " ×")

			if strings.Contains(rest, "uniform") {
				add(of+"WAL bytes/pair", "up to 8,192 more, for a page's first change after a checkpoint", get(large, "WAL-B/pair"), "")
			}
		}
	}
}

func micros(seconds float64) string { return format.Figures(seconds*1e6) + " µs" }
