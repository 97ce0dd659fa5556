package contract

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// OnStatement is a tracer of pgx that is called with the context of each statement. A
// statement with its setting in front is one.
type OnStatement func(ctx context.Context)

func (f OnStatement) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	f(ctx)

	return ctx
}

func (OnStatement) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (f OnStatement) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	f(ctx)

	return ctx
}

func (OnStatement) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (OnStatement) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}
