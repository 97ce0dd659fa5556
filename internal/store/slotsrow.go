package store

import (
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// States of a request for slots, see [slots].
const (
	slotGranted int64 = iota
	slotContested
	slotMissing
	slotHeld
	slotGone
	slotLocked
	slotBehind
)

// slotsRow is a row of the answer to a request for slots.
type slotsRow struct {
	row             Row
	i, state, slots int64
	mark            time.Time
	intended        bool
	// lazy: the commit wasn't waited for.
	lazy bool
}

func scanSlots(behind *tag) scanFunc[slotsRow] {
	var (
		s       rowScan
		r       slotsRow
		mark    pgtype.Timestamptz
		durable *string
	)

	s.init(behind, behind.column, &r.i, &r.state, &r.slots)
	dest := append(s.dest[:s.columns:s.columns], &mark, &r.intended, &durable)

	return func(from scanner) (_ slotsRow, err error) {
		r.row, err = s.read(from, dest)
		r.mark = mark.Time.UTC()
		r.lazy = durable != nil && *durable == "off"

		return r, err
	}
}

// lockID is the id of the row.
func (r slotsRow) lockID(family string) string {
	switch r.i {
	case -2:
		return family + PartGate
	case -1:
		return family + PartIntent
	case 0:
		return family + PartWriter
	}

	return family + strconv.FormatInt(r.i, 10)
}
