package pglocker_test

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// onStatement is a tracer of pgx that is called with the context of each statement. A
// statement with its setting in front is one.
type onStatement func(ctx context.Context)

func (f onStatement) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	f(ctx)

	return ctx
}

func (onStatement) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (f onStatement) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	f(ctx)

	return ctx
}

func (onStatement) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (onStatement) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}
