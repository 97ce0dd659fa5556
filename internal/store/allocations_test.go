package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestBatchAllocations: what a pair of statements allocates hardly grows with their requests.
func TestBatchAllocations(t *testing.T) { // not in parallel: it counts allocations
	const few, many = 50, 500

	s, _ := newStore(t, "pgx")

	pairs := func(n int) float64 {
		asked := make([]*store.Asked, n)
		for i := range asked {
			id := fmt.Sprintf("a lock with a long name %d", i)
			asked[i] = &store.Asked{ID: id, Owner: "owner of " + id, TTL: time.Minute}
		}

		ask := func(verb string) {
			if err := store.AskTogether(t.Context(), s, verb, asked); err != nil {
				t.Fatal(err)
			}
		}

		ask("create")

		return testing.AllocsPerRun(20, func() {
			ask("acquire")

			for _, a := range asked {
				if !a.Matched || a.Row.Owner != a.Owner {
					t.Fatalf("%q wasn't granted to %q, but to %q (error: %v)", a.ID, a.Owner, a.Row.Owner, a.Err)
				}

				a.Generation = a.Row.Generation
			}

			ask("release")

			for _, a := range asked {
				if !a.Matched {
					t.Fatalf("%q wasn't released: %v", a.ID, a.Err)
				}
			}
		})
	}

	first := pairs(few)
	if each := (pairs(many) - first) / (many - few); each > 0.5 {
		t.Errorf("one more lock takes %.1f allocations, want none", each)
	}
}

// uncomparable is a connection of pgx that can't be compared.
type uncomparable struct {
	conn *stdlib.Conn
	_    []int
}

func (u uncomparable) Conn() *pgx.Conn { return u.conn.Conn() }

// changing is a wrapper that a driver uses for one connection after the other.
type changing struct{ now *stdlib.Conn }

func (c *changing) Conn() *pgx.Conn { return c.now.Conn() }

// TestPgxConnOf: a connection that is used again is known without reflection, and never taken for another.
func TestPgxConnOf(t *testing.T) { // not in parallel: it counts allocations
	s, db := newStore(t, "pgx")

	raw := func(use func(c *stdlib.Conn)) {
		conn, err := db.Conn(t.Context())
		contract.Must(t, err)

		defer func() { contract.Must(t, conn.Close()) }()

		contract.Must(t, conn.Raw(func(driverConn any) error {
			use(driverConn.(*stdlib.Conn))

			return nil
		}))
	}

	known := func(driverConn any, want *pgx.Conn) {
		if own, ok := s.PgxConnOf(driverConn); !ok || own != want {
			t.Errorf("%T is taken for another connection", driverConn)
		}
	}

	raw(func(one *stdlib.Conn) {
		raw(func(other *stdlib.Conn) {
			wrapper := new(changing)

			for range 3 {
				known(one, one.Conn())
				known(other, other.Conn())
				known(uncomparable{conn: one}, one.Conn())
				known(uncomparable{conn: other}, other.Conn())

				for _, wrapper.now = range []*stdlib.Conn{one, other} {
					known(wrapper, wrapper.now.Conn())
				}
			}

			if _, ok := s.PgxConnOf(db); ok {
				t.Error("a handle is taken for a connection")
			}

			if n := testing.AllocsPerRun(100, func() { known(one, one.Conn()) }); n > 0 {
				t.Errorf("it takes %v allocations", n)
			}
		})
	})
}
