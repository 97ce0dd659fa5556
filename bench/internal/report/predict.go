package report

import (
	"github.com/ismurov/pglocker/bench/internal/format"
)

// at is the measured point on which the predictions rest.
func (m *model) at(goroutines int) point {
	for _, p := range m.points {
		if p.goroutines == goroutines {
			return p
		}
	}

	return m.points[len(m.points)-1]
}

// pairs predicts the pairs per second of a number of machines and servers. Each pair's lock
// is in one shard. All machines are like this one, and share only the servers.
func (m *model) pairs(machines, servers, shards int) (clients, server, disk float64) {
	statements := m.statements(shards)
	clients = float64(machines) * m.cores / m.client(statements)
	server = float64(servers) * m.cores / m.server(statements)
	// A flush for each statement that grants. Commits of other machines share it.
	disk = float64(servers) * m.flushes * min(float64(machines), m.shared) / (statements / 2)

	return clients, server, disk
}

// statements are those of a pair. A batch splits into one for each shard, down to one request in a statement.
func (m *model) statements(shards int) float64 {
	return min(2, m.at(machineGoroutines).statements*float64(shards))
}

func limits(clients, server, disk float64) (least float64, which string) {
	least, which = clients, "the clients' CPU"

	if server < least {
		least, which = server, "the server's CPU"
	}

	if disk < least {
		least, which = disk, "flushes"
	}

	return least, which
}

// ByMachines predicts for 1, 10 and 100 client machines on one server.
func (m *model) ByMachines() string {
	var rows [][]string

	for _, machines := range []int{1, 10, 100} {
		clients, server, disk := m.pairs(machines, 1, 1)
		least, which := limits(clients, server, disk)
		goroutines := machines * machineGoroutines

		rows = append(rows, []string{
			format.Thousands(machines), format.Thousands(goroutines),
			format.Figures(clients), format.Figures(server), format.Figures(disk),
			format.Figures(least), which, format.Duration(float64(goroutines) / least * 1e9),
		})
	}

	return markdown([]string{
		"machines", "goroutines", "clients' CPU allows", "server's CPU allows", "flushes allow", "pairs/s", "limit", "mean latency",
	}, rows)
}

// HeldByMachines predicts for as many held locks on each machine as W4 had.
func (m *model) HeldByMachines() string {
	if !(m.heldStatements > 0) {
		return "W4 was not measured in this run.\n"
	}

	var rows [][]string

	for _, machines := range []float64{1, 10, 100} {
		rows = append(rows, []string{
			format.Count(machines), format.Count(machines * m.heldLocks),
			format.Figures(machines * m.heldStatements), format.Figures(machines*m.heldServer) + " %",
			format.Figures(machines * m.heldWAL), format.Count(machines),
		})
	}

	return markdown([]string{"machines", "locks held", "statements/s", "server, of a core", "WAL bytes/s", "connections"}, rows)
}

// ByServers predicts for 100 machines on a table that is distributed by lock id.
func (m *model) ByServers() string {
	const machines = 100

	var (
		rows [][]string
		one  float64
	)

	for _, of := range []struct{ servers, shards int }{{1, 1}, {4, 4}, {4, 32}, {16, 16}, {16, 32}} {
		clients, server, disk := m.pairs(machines, of.servers, of.shards)
		least, which := limits(clients, server, disk)

		if of.servers == 1 {
			one = least
		}

		rows = append(rows, []string{
			format.Thousands(of.servers), format.Thousands(of.shards), format.Figures(m.statements(of.shards)),
			format.Figures(least), times(least / one), which,
		})
	}

	return markdown([]string{"servers", "shards", "statements/pair", "pairs/s", "over one server", "limit"}, rows)
}
