package cluster

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// The clients' role, which all runs on a server share. It may do what docs/guarantees.md says is
// enough (G9), and write to the fenced resources in the same database.
//
// A role's password is the superuser's. So the servers of a distributed engine, which go to each other as the role that
// asked, need only one.
const (
	clientRole     = "client"
	clientPassword = "postgres"
)

// roleSQL takes from PUBLIC what a database gives by default, and gives the role the rest. It sets
// how passwords are kept: initdb may have been told nothing of that, and Patroni's servers weren't.
const roleSQL = `
DO $$
BEGIN
    PERFORM set_config('password_encryption', 'scram-sha-256', true);
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '` + clientRole + `') THEN
        CREATE ROLE ` + clientRole + ` LOGIN PASSWORD '` + clientPassword + `';
    END IF;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO ` + clientRole + `', current_database());
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA pglocker, public TO ` + clientRole + `;
GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO ` + clientRole + `;
GRANT SELECT, INSERT, UPDATE ON ` + audit.BareSchema + `.` + audit.BareTable + ` TO ` + clientRole + `;
`

// RoleSetting is SQL that makes a setting the default of the clients' role in this database.
func RoleSetting(name, value string) string {
	return `
DO $$
BEGIN
    EXECUTE pg_catalog.format($sql$ALTER ROLE ` + clientRole + ` IN DATABASE %I SET ` + name + ` = ` + value + `$sql$, pg_catalog.current_database());
END $$;
`
}

// RoleSQL is SQL that lets the clients' role look into a schema.
func RoleSQL(schema string) string {
	return `GRANT USAGE ON SCHEMA ` + schema + ` TO ` + clientRole + `;`
}

func (c *Cluster) createRole(ctx context.Context) error {
	if _, err := c.Admin.ExecContext(ctx, roleSQL+traffic.GrantSQL(clientRole)+";\n"+c.options.Prepare); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	return nil
}

// role is a client's. On a distributed engine each client has one: its servers call the sessions among themselves by
// names of their own, so that only the role tells the audit which client has asked.
func (c *Client) role(client string) string {
	if c.cluster.options.Engine == nil {
		return clientRole
	}

	return client
}

// createRoles makes a role for each client that the run begins with, with the rights of the one above. None is killed
// there, and so followed by another.
func (c *Cluster) createRoles(ctx context.Context) error {
	for n := range c.options.Clients {
		role := pgx.Identifier{fmt.Sprintf("c%d.1", n+1)}.Sanitize()

		_, err := c.Admin.ExecContext(ctx, `
CREATE ROLE `+role+` LOGIN PASSWORD '`+clientPassword+`';
GRANT USAGE ON SCHEMA pglocker, public TO `+role+`;
GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO `+role+`;
`+traffic.GrantSQL(role))
		if err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}

	return nil
}
