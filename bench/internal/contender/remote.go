package contender

import (
	"context"
	"fmt"
)

// OpenAt opens a client in another process than that of the server's handle: pglocker's of either layer, or the
// floor's.
func OpenAt(ctx context.Context, url, name string, table Table, o Options) (Client, error) {
	switch name {
	case NamePglocker, NamePglockerLock:
		return openPglocker(ctx, url, table, name == NamePglockerLock, o)
	case NameFloor:
		return openFloor(ctx, url, table, o)
	}

	return nil, fmt.Errorf("bench: %s runs in no process of its own", name)
}
