package middle

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// message is one of PostgreSQL's protocol; the first one of a client has no kind.
func message(kind byte, body string) []byte {
	m := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	if kind != 0 {
		m = append([]byte{kind}, m...)
	}

	return append(m, body...)
}

func join(messages ...[]byte) []byte { return bytes.Join(messages, nil) }

var (
	startup = message(0, "\x00\x03\x00\x00user\x00client\x00\x00")
	idle    = message('Z', "I")
	update  = join(
		message('P', "s1\x00UPDATE pglocker.lock_statuses SET generation = 2\x00\x00\x00"), message('S', ""))
	execute = join(message('B', "\x00s1\x00\x00\x00\x00\x00\x00\x00"), message('E', "\x00\x00\x00\x00\x00"), message('S', ""))
	granted = join(message('2', ""), message('D', "row"), message('C', "UPDATE 1\x00"), idle)
)

// pair is a client and a server with a Middle between them.
type pair struct {
	t              *testing.T
	middle         *Middle
	client, server net.Conn
	heard          *bufio.Reader // by the client
	asked          *bufio.Reader // by the server
}

func connect(t *testing.T) *pair {
	t.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { must(t, listener.Close()) })

	m, err := New(listener.Addr().String())
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })

	p := &pair{t: t, middle: m}
	p.client, err = net.Dial("tcp", m.Address())
	must(t, err)
	p.server, err = listener.Accept()
	must(t, err)

	for _, conn := range []net.Conn{p.client, p.server} {
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		t.Cleanup(func() { _ = conn.Close() })
	}

	p.heard, p.asked = bufio.NewReader(p.client), bufio.NewReader(p.server)

	return p
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// pass writes to one end, and wants at the other just that, or what is given.
func (p *pair) pass(to net.Conn, from *bufio.Reader, wrote []byte, want ...byte) {
	p.t.Helper()

	if want == nil {
		want = wrote
	}

	_, err := to.Write(wrote)
	must(p.t, err)

	got := make([]byte, len(want))
	if _, err := io.ReadFull(from, got); err != nil || !bytes.Equal(got, want) {
		p.t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func (p *pair) ask(request []byte, want ...byte) {
	p.t.Helper()
	p.pass(p.client, p.asked, request, want...)
}

func (p *pair) answer(reply []byte, want ...byte) {
	p.t.Helper()
	p.pass(p.server, p.heard, reply, want...)
}

// ended wants the end of what the client hears.
func (p *pair) ended() {
	p.t.Helper()

	if rest, err := io.ReadAll(p.heard); len(rest) > 0 || err != nil && !errors.Is(err, net.ErrClosed) {
		p.t.Errorf("the client hears %q, %v, want the end", rest, err)
	}
}

// TestLeftAlone: without trouble, everything passes as soon as its receiver waits for it.
func TestLeftAlone(t *testing.T) {
	t.Parallel()

	p := connect(t)
	p.ask(startup)
	p.answer(message('R', "\x00\x00\x00\x0a"))
	p.ask(message('p', "secret"))
	p.answer(join(message('R', "\x00\x00\x00\x00"), message('S', "a\x00b\x00"), idle))
	p.ask(update)
	p.answer(join(message('1', ""), idle))
	p.ask(execute)
	p.answer(granted)
	p.answer(message('A', "\x00\x00\x00\x01channel\x00payload\x00"))
	p.ask(message('Q', "SELECT\x00"))
	p.answer(join(message('C', "SELECT 0\x00"), idle))

	_, err := p.server.Write(message('E', "SFATAL\x00\x00"))
	must(t, err)
	must(t, p.server.Close())

	if rest, err := io.ReadAll(p.heard); err != nil || !bytes.HasPrefix(rest, []byte("E")) {
		t.Errorf("the client hears %q, %v, want why it ended", rest, err)
	}

	if p.middle.Made() != 0 {
		t.Errorf("%d troubles", p.middle.Made())
	}
}

// TestForge: an error takes the place of the reply to what was committed, and of no other.
func TestForge(t *testing.T) {
	t.Parallel()

	forgery := &Forgery{Severity: "FATAL", Code: "XX000"}
	begun := join(message('C', "BEGIN\x00"), message('Z', "T"))

	for name, test := range map[string]struct {
		reply  []byte
		rows   bool
		before int // how much of the reply arrives, -1: all
	}{
		"a change":              {granted, false, 0},
		"a change, with rows":   {granted, true, len(join(message('2', ""), message('D', "row")))},
		"a commit":              {join(message('C', "COMMIT\x00"), idle), false, 0},
		"a query with a change": {join(message('D', ""), message('C', "SELECT 1\x00"), idle), false, 0},
		"an insert":             {join(message('C', "INSERT 0 1\x00"), idle), false, 0},
		"nothing changed":       {join(message('C', "UPDATE 0\x00"), idle), false, -1},
		"nothing inserted":      {join(message('C', "INSERT 0 0\x00"), idle), false, -1},
		"not committed":         {join(message('C', "UPDATE 1\x00"), message('Z', "T")), false, -1},
		"a transaction":         {begun, false, -1},
		"an error":              {join(message('E', "SERROR\x00\x00"), idle), false, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			p := connect(t)
			p.ask(startup)
			p.answer(idle)

			f := *forgery
			f.Rows = test.rows
			p.middle.Forge(func() *Forgery { return &f })

			if test.before < 0 {
				p.answer(test.reply)

				return
			}

			forged := message('E', "SFATAL\x00VFATAL\x00CXX000\x00Mthe connection to the server was lost\x00\x00")
			p.answer(test.reply, join(test.reply[:test.before], forged)...)
			p.ended()

			if p.middle.Made() != 1 {
				t.Errorf("%d troubles", p.middle.Made())
			}
		})
	}
}

// TestDelay: a request that changes locks arrives after its client was cut off; others aren't
// asked about.
func TestDelay(t *testing.T) {
	t.Parallel()

	const after = 50 * time.Millisecond

	p := connect(t)
	p.middle.Delay(func() time.Duration { return after })
	p.ask(startup)
	p.answer(idle)
	p.ask(message('Q', "SELECT 1 FROM pglocker.lock_statuses\x00"))
	p.answer(join(message('C', "BEGIN\x00"), message('Z', "T")))
	p.ask(update) // which only prepares
	p.answer(join(message('1', ""), message('Z', "T")))
	p.ask(execute) // in a transaction
	p.answer(join(message('C', "ROLLBACK\x00"), idle))

	began := time.Now()
	p.ask(execute)

	if took := time.Since(began); took < after {
		t.Errorf("it arrived after %s", took)
	}

	p.ended()
}

// TestReadOnly: a session is asked for as one that only reads, a request to cancel is left
// alone.
func TestReadOnly(t *testing.T) {
	t.Parallel()

	p := connect(t)
	p.middle.ReadOnly(func() bool { return true })
	p.ask(startup, message(0, strings.TrimSuffix(string(startup[4:]), "\x00")+"default_transaction_read_only\x00on\x00\x00")...)

	other := connect(t)
	other.middle.ReadOnly(func() bool { return true })
	other.ask(message(0, "\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02"))

	if p.middle.Made() != 1 || other.middle.Made() != 0 {
		t.Errorf("%d and %d troubles", p.middle.Made(), other.middle.Made())
	}
}
