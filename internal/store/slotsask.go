package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ismurov/pglocker/internal/pause"
)

// SlotsRequest asks for slots of a family, or for its writer's row.
type SlotsRequest struct {
	// Family is what the ids of its rows begin with, up to their last colon.
	Family string
	// Owner must be of this call alone: a grant whose reply is lost is found by it.
	Owner       string
	TTL, Margin time.Duration
	// Permits is how many slots may be held. Want is how many of them this request takes, all or none.
	Permits, Want int
	// Writes: it takes the writer's row if nothing at all is held. Permits and Want are 1.
	Writes bool
	// From is the generation of the writer's row that a downgrade frees in exchange for a slot, or 0.
	From int64
	// Nested: a reader asks that holds another slot. An intent doesn't keep it out: the writer has to
	// wait for it, and it may wait for itself.
	Nested bool
	// Once: a request that is contested isn't repeated. Its caller waits in line.
	Once bool
	// Contended: other processes have waiters at the gate. A grant is made in two statements then, which keep
	// the gate locked for less time than one would.
	Contended bool
}

// Gate is the id of the gate of the request's family.
func (r *SlotsRequest) Gate() string { return r.Family + PartGate }

// AcquireSlots grants what a request asks for if that is free, and makes rows that are missing. A
// refused request costs no write. The verdict is
//
//   - Granted: Grants are the rows, which have one token in common;
//   - Busy: LockID is the row in the way whose lease ends first, and Row its row. Of a reader's
//     request it is the writer or its intent, if they are in the way. If it is the gate, the request
//     may be granted if it is repeated, or another transaction has a row locked;
//   - WrongGeneration: the row of From is not held under it any more.
//
// Mark is the mark that stands on the gate, and Intended tells of an intent. Errors are as for [Store.Acquire].
func (s *Store) AcquireSlots(ctx context.Context, r SlotsRequest) (Result, error) {
	g := slotsGrant{grant{id: r.Gate(), owner: r.Owner, ttl: r.TTL}, r}
	if err := g.begin(ctx, s); err != nil {
		return Result{}, err
	}

	return g.result(g.acquire(ctx))
}

// lockedTries is how often slots are asked for at most while a row is locked.
const lockedTries = 5

// slotsGrant is one request for slots, through all its attempts.
type slotsGrant struct {
	grant
	asked SlotsRequest
}

func (g *slotsGrant) request() *request {
	req := &request{
		shape: g.shape, id: g.asked.Family, gate: g.id, owner: g.owner, ttl: Microseconds(g.ttl),
		permits: int64(g.asked.Permits), want: int64(g.asked.Want), origin: g.asked.From,
	}
	if g.asked.Writes {
		req.writes = 1
	}

	if g.asked.Contended {
		req.lazily = 1
	}

	if g.asked.Nested && req.origin == 0 {
		req.origin = -1
	}

	return req
}

// ask asks once. Requests for one slot go together.
func (g *slotsGrant) ask(ctx context.Context) answer[slotsRow] {
	req := g.request()
	if req.shape.plain {
		return answer[slotsRow]{outcome: refused, err: g.store.withoutSlots()}
	}

	lane, leave := g.store.gates.grants(g.store, req.gate, req.permits)
	defer leave()

	return persist(ctx, g.store, func(bool) answer[slotsRow] {
		if req.want > 1 || req.writes > 0 || req.origin != 0 {
			return lane.askOne(ctx, *req, false)
		}

		return lane.ask(ctx, *req, false)
	})
}

func (g *slotsGrant) acquire(ctx context.Context) (Result, error) {
	var last Result

	for contests, lost := 0, 0; contests < maxContests; {
		start := time.Now()
		a := g.ask(ctx)

		switch {
		case a.outcome == unknown:
			g.lose(start, a.err)

			lost++
			if !g.shape.full || lost >= sendAttempts || !backOff(ctx, lost) {
				return Result{}, g.doubt(a.err)
			}
		case a.outcome == refused && a.err != nil && g.outdated(ctx, a.err):
			continue
		case a.err != nil:
			return Result{}, g.doubt(a.err)
		}

		if g.doubtful && (len(a.rows) == 0 || a.rows[0].state != slotGranted) {
			res, granted, err := g.settleSlots(ctx)

			switch {
			case err != nil:
				return Result{}, g.doubt(err)
			case granted:
				return res, nil
			}
		}

		if a.err != nil {
			continue
		}

		contests++

		res, state, err := g.read(a)
		if err != nil {
			return Result{}, err
		}

		switch state {
		case slotGranted:
			if a.rows[0].lazy {
				if err := g.store.settleGrants(ctx, g.shape, g.owner, res.Grants); err != nil {
					g.lose(a.sent, err)

					return Result{}, g.doubt(err)
				}
			}

			return res, nil
		case slotGone:
			return res, nil
		case slotLocked:
			// Mostly by a release or a renewal, for a moment: it is no reason to refuse.
			if contests < lockedTries && pause.Sleep(ctx, pause.Jitter(time.Millisecond<<contests, 2)) {
				last = res

				continue
			}

			fallthrough
		case slotHeld:
			if g.doubtful && !g.shape.full {
				return Result{}, g.doubt(nil)
			}

			return res, nil
		case slotMissing:
			if err := g.create(ctx, a.rows); err != nil {
				return Result{}, g.doubt(err)
			}
		case slotBehind, slotContested:
			if g.asked.Once && !g.doubtful {
				res.Contested = true

				return res, nil
			}

			// Grants to others came first. Each attempt fails for another one.
			if state == slotContested && contests > 1 && !pause.Sleep(ctx, pause.Jitter(time.Millisecond<<min(contests, 4), 2)) {
				return Result{}, g.doubt(ended(ctx))
			}
		}

		last = res
	}

	if g.doubtful {
		return Result{}, g.doubt(nil)
	}

	if g.shape.secured && last.Verdict == 0 {
		return Result{}, g.store.hidden(g.id)
	}

	last.Verdict = Busy

	return last, nil
}

// read turns an answer into a result, and says what state it shows.
func (g *slotsGrant) read(a answer[slotsRow]) (res Result, state int64, err error) {
	if len(a.rows) == 0 {
		return res, slotMissing, nil
	}

	first := a.rows[0]
	res = Result{Verdict: Busy, Row: first.row, LockID: first.lockID(g.asked.Family), Mark: first.mark, Intended: first.intended, Sent: a.sent}

	switch first.state {
	case slotGranted:
		return g.granted(a, res)
	case slotGone:
		res.Verdict = WrongGeneration
	}

	return res, first.state, nil
}

// granted is the result of a grant. Its row is that whose lease ends first.
func (g *slotsGrant) granted(a answer[slotsRow], res Result) (Result, int64, error) {
	res.Verdict = Granted

	for _, r := range a.rows {
		res.Grants = append(res.Grants, LockRow{r.lockID(g.asked.Family), r.row})
		if r.row.ExpiresAt.Before(res.Row.ExpiresAt) {
			res.Row = r.row
		}
	}

	slices.SortFunc(res.Grants, func(a, b LockRow) int { return cmp.Compare(a.LockID, b.LockID) })

	var err error

	switch {
	case len(res.Grants) != g.asked.Want: // a trigger or a policy
		err = fmt.Errorf("%w: %d of %d slots were granted", ErrInvalidTable, len(res.Grants), g.asked.Want)
	case res.Lease() <= g.asked.Margin:
		err = errCut(res, g.asked.Margin)
	}

	if err != nil {
		g.lost = append(g.lost, g.owner) // to be given back
	}

	return res, slotGranted, err
}

// settleSlots reports whether one of the lost attempts was granted. That one is stray no more.
func (g *slotsGrant) settleSlots(ctx context.Context) (res Result, granted bool, err error) {
	for i, owner := range g.lost {
		req := g.request()
		req.owner = owner

		a := single(ctx, g.store, &settleSlots, req, func(from scanner) (r slotsRow, err error) {
			var s rowScan

			s.init(new(tag), &r.i, new(*string))
			r.row, err = s.scan(from)

			return r, err
		})

		switch {
		case a.err != nil:
			return Result{}, false, a.err
		case len(a.rows) == g.asked.Want:
			res, _, err := g.granted(a, Result{
				Row: a.rows[0].row, LockID: a.rows[0].lockID(g.asked.Family), Sent: g.firstSent, Later: a.sent.Sub(g.firstSent),
			})
			if err == nil {
				g.lost = append(g.lost[:i:i], g.lost[i+1:]...)
			}

			return res, true, err
		}
	}

	return Result{}, false, nil
}

// create makes the rows that the answer shows to be missing, free.
func (g *slotsGrant) create(ctx context.Context, rows []slotsRow) error {
	var parts []string

	switch {
	case len(rows) == 0:
		parts = append(parts, PartGate)

		if strings.HasPrefix(g.asked.Family, prefixRWLock) {
			parts = append(parts, PartWriter)
		}
	case g.asked.Writes:
		parts = append(parts, PartWriter)
	}

	if !g.asked.Writes {
		slots := int64(0)
		if len(rows) > 0 {
			slots = rows[0].slots
		}

		for range g.asked.Want {
			slots++
			parts = append(parts, strconv.FormatInt(slots, 10))
		}
	}

	for _, part := range parts {
		if _, err := g.store.Create(ctx, g.asked.Family+part); err != nil {
			return err
		}
	}

	return nil
}
