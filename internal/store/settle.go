package store

import (
	"context"
	"slices"
)

// settle finds out what became of a grant whose reply was lost: it writes the row that the grant to
// {owner} left, unchanged. Its own commit, which is awaited, covers that of the grant. A SELECT
// could show a grant that is not yet durable. It locks as acquire does.
var settle = verb{
	given: parameters{paramID, paramOwner},
	one:   change(sqlUnchanged, sqlHeldByOwner, `{row}, {durable}`),
	many:  changeMany(`{durable} AS durable`, sqlHeldByOwner, "", sqlUnchanged, `{row}, r.n`),
	six:   true,
}

const (
	sqlUnchanged   = `expires_at = l.expires_at`
	sqlHeldByOwner = `l.owner {=} {owner}
   AND l.expires_at {>} {now}`
)

// settle reports whether one of the lost attempts was granted. That one is stray no more.
func (g *grant) settle(ctx context.Context, req request, alone bool) (a answer[Row], granted bool) {
	req.seen, req.hold = 0, 0 // it goes by the owner alone

	for i, owner := range g.lost {
		req.owner = owner
		a = g.store.lanes.settle.write(ctx, req, alone)
		g.waited = g.waited && a.waited

		switch {
		case a.err != nil:
			return a, false
		case len(a.rows) == 1:
			g.owner, g.lost = owner, slices.Delete(g.lost, i, i+1)

			return a, true
		}
	}

	return a, false
}
