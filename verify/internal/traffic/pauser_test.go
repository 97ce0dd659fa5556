package traffic

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"github.com/ismurov/pglocker"
)

// message is one of PostgreSQL's protocol.
func message(kind byte, text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(text))), text...)
}

// TestExecutes: what makes the server execute a statement is told from what only prepares
// one, pings, or opens a connection.
func TestExecutes(t *testing.T) {
	t.Parallel()

	prepare := bytes.Join([][]byte{message('P', "\x00SELECT 1\x00\x00\x00"), message('D', "S\x00"), message('S', "")}, nil)
	execute := bytes.Join([][]byte{message('B', "\x00\x00"), message('E', "\x00\x00\x00\x00\x00"), message('S', "")}, nil)
	startup := binary.BigEndian.AppendUint32(nil, 8)
	startup = binary.BigEndian.AppendUint32(startup, 3<<16)

	for name, test := range map[string]struct {
		written []byte
		want    bool
	}{
		"nothing":               {nil, false},
		"startup":               {startup, false},
		"password":              {message('p', "secret\x00"), false},
		"prepare":               {prepare, false},
		"execute":               {execute, true},
		"both":                  {append(bytes.Clone(prepare), execute...), true},
		"simple query":          {message('Q', "UPDATE a SET b = 1\x00"), true},
		"ping":                  {message('Q', "-- ping\x00"), false},
		"a message that is cut": {message('P', "\x00SELECT 1")[:9], false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			if got := executes(test.written); got != test.want {
				t.Errorf("it executes: %t, want %t", got, test.want)
			}
		})
	}
}

// TestPauseOnce: a pause is taken once, where it was told and nowhere else, and can be
// taken back.
func TestPauseOnce(t *testing.T) {
	t.Parallel()

	stops := 0
	p := &pauser{stop: func() { stops++ }}

	expect := func(want int) {
		t.Helper()

		if stops != want {
			t.Fatalf("%d stops, want %d", stops, want)
		}
	}

	p.reached(inCritical)
	expect(0)

	p.at(inCritical)
	p.reached(beforeGuard)
	expect(0)
	p.reached(inCritical)
	p.reached(inCritical)
	expect(1)

	p.at(inCritical)
	p.at("nowhere")
	p.reached(inCritical)
	expect(1)
}

// spy is a driver whose connections write a statement, and answer nothing.
type spy struct{ conn net.Conn }

func (s spy) Connect(context.Context) (driver.Conn, error) { return s, nil }
func (s spy) Driver() driver.Driver                        { return nil }
func (s spy) Prepare(string) (driver.Stmt, error)          { return nil, errors.ErrUnsupported }
func (s spy) Begin() (driver.Tx, error)                    { return nil, errors.ErrUnsupported }
func (s spy) Close() error                                 { return nil }

var errSpied = errors.New("spied")

func (s spy) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	if _, err := s.conn.Write(message('Q', "SELECT\x00")); err != nil {
		return nil, err
	}

	return nil, errSpied
}

// deaf takes all that is written.
type deaf struct{ net.Conn }

func (deaf) Write(b []byte) (int, error) { return len(b), nil }

// TestPauseWithin: a client that is to stop within a request of the library's stops there,
// and not within one of the application's.
func TestPauseWithin(t *testing.T) {
	t.Parallel()

	stops := 0
	p := &pauser{stop: func() { stops++ }}
	dial := p.watch(func(context.Context, string, string) (net.Conn, error) { return deaf{}, nil })

	conn, err := dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}

	db := sql.OpenDB(spy{conn})
	defer db.Close()

	locker, err := pglocker.New(db, &pglocker.Config{})
	if err != nil {
		t.Fatal(err)
	}

	p.at(inRequest)

	if rows, err := db.QueryContext(t.Context(), "SELECT"); !errors.Is(err, errSpied) || stops != 0 {
		t.Errorf("the application's request: %v, %v, %d stops, want none", rows, err, stops)
	}

	p.at(inRenewer)

	if _, err := locker.GetLockStatus(t.Context(), "a"); err == nil || stops != 0 {
		t.Errorf("no renewal: %v, %d stops, want none", err, stops)
	}

	p.at(inRequest)

	if _, err := locker.GetLockStatus(t.Context(), "a"); err == nil || stops != 1 {
		t.Errorf("the library's request: %v, %d stops, want one", err, stops)
	}
}
