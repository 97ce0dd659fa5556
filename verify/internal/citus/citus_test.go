package citus

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/audit"
)

// TestJoin: what several servers have written down is one audit, in the order of time. Their transactions stay apart.
func TestJoin(t *testing.T) {
	t.Parallel()

	all := join([][]*audit.Transition{
		{{Seq: 1, Lock: "a", At: 10, XID: 700}, {Seq: 2, Lock: "b", At: 30, XID: 700}},
		{{Seq: 1, Lock: "a", At: 20, XID: 700}, {Seq: 2, Lock: "c", At: 40, XID: 701}},
		nil,
	})

	xids := make(map[int64]int)

	for n, tr := range all {
		if tr.Seq != int64(n+1) || tr.At != int64(n+1)*10 {
			t.Errorf("%d: %s", n, tr)
		}

		xids[tr.XID]++
	}

	if len(all) != 4 || len(xids) != 3 || all[0].XID != all[2].XID {
		t.Errorf("%d transitions, transactions %v", len(all), xids)
	}
}
