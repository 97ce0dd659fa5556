package cluster

import (
	"context"
	"fmt"
	"net/url"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// The clients' role, which all runs on a server share. It may do what docs/guarantees.md says is
// enough (G9), and write to the fenced resources in the same database.
const (
	clientRole     = "client"
	clientPassword = "client"
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

func clientUser() *url.Userinfo { return url.UserPassword(clientRole, clientPassword) }
