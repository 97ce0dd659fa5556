package top

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// short says in a few words, on one line, what kept the server from answering.
func short(err error) string {
	text := err.Error()

	if network, ok := errors.AsType[*net.OpError](err); ok {
		text = "no connection: " + network.Err.Error()
	}

	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		text = "the server says: " + server.Message
	}

	if errors.Is(err, context.DeadlineExceeded) {
		text = "the server doesn't answer"
	}

	return printable(strings.Join(strings.Fields(strings.TrimPrefix(text, "pglocker: ")), " "))
}
