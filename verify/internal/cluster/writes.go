package cluster

import (
	"context"
	"fmt"

	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// Writes reads the writes to the counters.
func (c *Cluster) Writes(ctx context.Context) ([]oracle.Write, error) {
	rows, err := c.Admin.QueryContext(ctx, `SELECT lock_id, token, value, client FROM writes ORDER BY seq`)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	defer rows.Close()

	var writes []oracle.Write

	for rows.Next() {
		var w oracle.Write
		if err := rows.Scan(&w.Lock, &w.Token, &w.Value, &w.Client); err != nil {
			return nil, fmt.Errorf("cluster: %w", err)
		}

		writes = append(writes, w)
	}

	return writes, rows.Err()
}
