package model

// A prune raises the watermark to the generation of a row that is free, and commits that. Then it deletes the
// row, unless that was used meanwhile. Both commits are flushed with whatever comes later.
//
// The first grant of a lock that has no row reads the watermark, and inserts the row later, above what it has
// read. From the one to the other it has the watermark's row shared, so the watermark can't be raised.

// prune is a step of a prune, if there is one.
func (m *machine) prune(s *State, yield yield) {
	row := s.cur.row
	if s.prunes >= m.Prunes || !row.there || row.expires > s.clock() || s.tx.open || s.shared() {
		return
	}

	if s.cur.mark < row.gen && (!s.marking() || m.mutant == PlainWatermark) {
		t := *s
		t.cur.mark = row.gen
		yield("a prune raises the watermark", "", t, nil)
	}

	if s.cur.mark >= row.gen || m.mutant == DeleteFirst {
		t := *s
		t.prunes++
		t.cur.row = noRow()

		yield("a prune deletes the row", "", t, nil)
	}
}

// marking: a first grant has the watermark shared.
func (s *State) marking() bool {
	for c := range s.clients {
		for _, r := range s.clients[c].requests {
			if r.kind == acquire && r.phase == begun {
				return true
			}
		}
	}

	return false
}

// beginInsert is the moment when a first grant reads the watermark. It is false if r is none, or has read it.
func (m *machine) beginInsert(s *State, r *request) bool {
	if m.Prunes == 0 || r.kind != acquire || r.phase != sent || s.cur.row.there {
		return false
	}

	r.phase, r.above = begun, s.cur.mark+1

	if m.mutant == NoWatermark {
		r.above = 0
	}

	return true
}

// pruned: the row that a client was told of is none any more.
func (s *State) pruned(p promise) bool { return !s.cur.row.there && s.cur.mark >= p.gen }
