package workload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
)

// line is what a process of W12 tells. It is ready when it has sent a statement.
type line struct {
	Ready  bool    `json:",omitempty"`
	Moment *moment `json:",omitempty"`
	Count  *count  `json:",omitempty"`
}

// count is what a process has sent so far, by the beginning of the text, and its open connections.
type count struct {
	Sent        map[string]int
	Connections int
	Holds       bool
}

// waiting is a process of W12.
type waiting struct {
	mu  sync.Mutex // guards all
	out *json.Encoder
	count
}

// waitingChild waits for the lock, holds it and releases it, again and again, until its input ends. It tells its
// count at each line of input.
func waitingChild(ctx context.Context, j job, in io.Reader, out *json.Encoder) (err error) {
	w := &waiting{out: out, count: count{Sent: make(map[string]int)}}

	ctx, end := context.WithCancel(ctx)
	defer end()

	client, err := contender.OpenAt(ctx, j.URL, j.Contender, j.Table, contender.Options{Statements: w.sent, Dial: w.dial})
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, client.Close()) }()

	go func() {
		defer end()

		for lines := bufio.NewScanner(in); lines.Scan(); {
			w.tell(line{Count: &w.count})
		}
	}()

	for {
		release, err := client.Acquire(ctx, j.LockID)
		if ctx.Err() != nil {
			return nil
		}

		if err != nil {
			return err
		}

		w.turn(true)

		_ = sleep(ctx, j.Hold) // if the input ends, it releases all the same

		w.turn(false)

		if err := release(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
}

func (w *waiting) turn(granted bool) {
	now := time.Now().UnixNano()

	w.mu.Lock()
	w.Holds = granted
	w.mu.Unlock()

	w.tell(line{Moment: &moment{At: now, Granted: granted}})
}

func (w *waiting) tell(l line) {
	w.mu.Lock()
	defer w.mu.Unlock()

	_ = w.out.Encode(l) // without a parent, its input ends
}

func (w *waiting) sent(text string) {
	words := strings.Fields(text)
	text = strings.Join(words[:min(len(words), 14)], " ")

	w.mu.Lock()
	defer w.mu.Unlock()

	if len(w.Sent) == 0 {
		_ = w.out.Encode(line{Ready: true}) // as above
	}

	w.Sent[text]++
}

func (w *waiting) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}

	w.connections(1)

	return &counted{Conn: conn, closed: sync.OnceFunc(func() { w.connections(-1) })}, nil
}

func (w *waiting) connections(more int) {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.Connections += more
}

type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	c.closed()

	return c.Conn.Close()
}
