package workload

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/stats"
)

// Processes are the parameters of W12.
func Processes(n int, hold time.Duration) string {
	return fmt.Sprintf("processes=%d/hold=%s", n, hold)
}

const (
	// queueStarters is how many processes start at once.
	queueStarters = 8
	// queueLimit is how long W12 may take beside the measured time.
	queueLimit = 3 * time.Minute
	// countWithin is how long a process may take to tell what it has sent.
	countWithin = 20 * time.Second
	// oftenSent is how often in a hand-over a statement is sent that is worth a line.
	oftenSent = 0.5
)

// Queue is W12: processes wait for one lock, and each holds it for a while.
func (b *Bench) Queue(ctx context.Context) error {
	n := b.Plan.QueueProcesses
	limit := queueLimit + b.Plan.QueueFor

	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	return b.ownTable(ctx, "queue", 1, func(table contender.Table) error {
		key := result.Key{Workload: "W12", Params: Processes(n, b.Plan.QueueHold), Contender: contender.NamePglockerLock}

		return b.queue(ctx, key, n, job{
			Role: "wait", URL: b.Postgres.URL(), Contender: key.Contender, Table: table, LockID: contender.ID(0),
			Hold: b.Plan.QueueHold, Limit: limit,
		})
	})
}

func (b *Bench) queue(ctx context.Context, key result.Key, n int, j job) error {
	q, err := startQueue(ctx, n, j)
	if err != nil {
		return err
	}

	measured, err := b.measureQueue(q)
	if err := cmp.Or(q.end(), err); err != nil {
		return err
	}

	gaps, err := gapsOf(q.moments, measured.began, measured.ended)
	if err != nil {
		return err
	}

	span := time.Duration(measured.ended - measured.began)
	each := func(n float64) float64 { return n / float64(len(gaps)) }
	p50, p99 := stats.Percentile(gaps, 0.5), stats.Percentile(gaps, 0.99)
	statements := 0

	for _, sent := range measured.sent {
		statements += sent
	}

	metrics := []result.Metric{
		{Unit: "handovers/s", Value: float64(len(gaps)) / span.Seconds()},
		{Unit: "gap-p50-ns", Value: float64(p50)},
		{Unit: "gap-p99-ns", Value: float64(p99)},
		{Unit: "statements/handover", Value: each(float64(statements))},
		{Unit: "connections/waiter", Value: measured.connections},
		{Unit: "connections", Value: float64(measured.most)},
	}

	if measured.hasCPU {
		metrics = append(metrics, result.Metric{Unit: "server-core-%", Value: measured.server.Seconds() / span.Seconds() * 100})
	}

	b.Log.Add(result.Round{Key: key, N: len(gaps), Elapsed: span, Metrics: metrics})
	b.Say("%-58s %10d hand-overs   gap p50 %9v   p99 %9v   %.1f statements each   %.2f connections a waiter, %d in all", key,
		len(gaps), p50.Round(time.Microsecond), p99.Round(time.Microsecond), each(float64(statements)), measured.connections, measured.most)

	for _, text := range slices.SortedFunc(maps.Keys(measured.sent), func(a, b string) int {
		return cmp.Compare(measured.sent[b], measured.sent[a])
	}) {
		if often := each(float64(measured.sent[text])); often >= oftenSent {
			b.Say("  %8.1f a hand-over: %s", often, text)
		}
	}

	return nil
}

// moment is when the lock was granted, or when its release was called, in nanoseconds since 1970. All processes have
// one clock.
type moment struct {
	At      int64
	Granted bool
}

// gapsOf returns the times from the call of each release to the next grant, sorted. The grant lies between began and
// ended.
func gapsOf(moments []moment, began, ended int64) ([]time.Duration, error) {
	sorted := slices.SortedFunc(slices.Values(moments), func(a, b moment) int { return cmp.Compare(a.At, b.At) })

	var gaps []time.Duration

	for i, m := range sorted {
		if i > 0 && m.Granted == sorted[i-1].Granted {
			return nil, errors.New("bench: two processes held the lock at once")
		}

		if i > 0 && m.Granted && m.At >= began && m.At < ended {
			gaps = append(gaps, time.Duration(m.At-sorted[i-1].At))
		}
	}

	if len(gaps) == 0 {
		return nil, errors.New("bench: the lock was not handed over")
	}

	slices.Sort(gaps)

	return gaps, nil
}

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

// queue are the processes of W12.
type queue struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	group  sync.WaitGroup
	ends   []*os.File // each process's input
	ready  chan struct{}
	counts chan count
	grace  time.Duration // how long the processes may take to end

	mu      sync.Mutex
	moments []moment // mu guards it until end has returned
	ending  bool     // mu guards it
}

// startQueue starts processes, and returns when each has asked for the lock.
func startQueue(ctx context.Context, n int, j job) (*queue, error) {
	q := &queue{ready: make(chan struct{}, n), counts: make(chan count, n), grace: childGrace}
	q.ctx, q.cancel = context.WithCancelCause(ctx)

	for started := range n + queueStarters {
		var err error

		if started >= queueStarters {
			err = receive(q, q.ready, time.Minute, func(struct{}) {})
		}

		if err == nil && started < n {
			err = q.start(j)
		}

		if err != nil {
			return nil, cmp.Or(q.end(), err)
		}
	}

	return q, nil
}

func (q *queue) start(j job) error {
	in, end, err := os.Pipe()
	if err != nil {
		return err
	}

	q.ends = append(q.ends, end)

	q.group.Go(func() {
		err := runChild(q.ctx, j, in, q.hear)
		err = errors.Join(err, in.Close())

		q.mu.Lock()
		ending := q.ending
		q.mu.Unlock()

		if err == nil && !ending {
			err = errors.New("bench: a process ended that should wait for the lock")
		}

		if err != nil {
			q.cancel(err) // the first one is the cause
		}
	})

	return nil
}

func (q *queue) hear(l line) {
	switch {
	case l.Moment != nil:
		q.mu.Lock()
		q.moments = append(q.moments, *l.Moment)
		q.mu.Unlock()
	case l.Count != nil:
		q.counts <- *l.Count
	case l.Ready:
		q.ready <- struct{}{}
	}
}

// receive calls use with what comes next.
func receive[T any](q *queue, from <-chan T, within time.Duration, use func(T)) error {
	timer := time.NewTimer(within)
	defer timer.Stop()

	select {
	case got := <-from:
		use(got)

		return nil
	case <-q.ctx.Done():
		return context.Cause(q.ctx)
	case <-timer.C:
		return fmt.Errorf("bench: a process has told nothing for %s", within)
	}
}

// count asks all processes for their counts.
func (q *queue) count() (all []count, err error) {
	for _, end := range q.ends {
		if _, err := io.WriteString(end, "\n"); err != nil {
			return nil, err
		}
	}

	for range q.ends {
		if err := receive(q, q.counts, countWithin, func(c count) { all = append(all, c) }); err != nil {
			return nil, err
		}
	}

	return all, nil
}

// end ends all processes, and kills those that take too long. It returns what was wrong with the first.
func (q *queue) end() error {
	cause := context.Cause(q.ctx)

	q.mu.Lock()
	q.ending = true
	q.mu.Unlock()

	for _, end := range q.ends {
		_ = end.Close() // only the process can miss it, and is killed then
	}

	late := time.AfterFunc(q.grace, func() { q.cancel(errors.New("bench: a process didn't end, and was killed")) })
	q.group.Wait()
	late.Stop()

	cause = cmp.Or(cause, context.Cause(q.ctx))
	q.cancel(nil)

	return cause
}

// queueMeasured is what was measured between two moments, in nanoseconds since 1970.
type queueMeasured struct {
	began, ended int64
	sent         map[string]int // by the beginning of the text
	connections  float64        // of a process that waits
	most         int            // connections of all
	server       time.Duration  // CPU
	hasCPU       bool
}

func (b *Bench) measureQueue(q *queue) (m queueMeasured, err error) {
	// The first time in line is another: all come at once.
	if err := sleep(q.ctx, min(max(5*b.Plan.QueueHold, time.Second), 5*time.Second)); err != nil {
		return m, cmp.Or(context.Cause(q.ctx), err)
	}

	before, err := q.count()
	if err != nil {
		return m, err
	}

	m.began = time.Now().UnixNano()
	cpuBefore, _ := b.Postgres.CPU()

	for begun := time.Now(); time.Since(begun) < b.Plan.QueueFor; {
		if err := sleep(q.ctx, b.Plan.QueueFor/10); err != nil {
			return m, cmp.Or(context.Cause(q.ctx), err)
		}

		now, err := b.Postgres.Connections(q.ctx)
		if err != nil {
			return m, err
		}

		m.most = max(m.most, now)
	}

	cpuAfter, ok := b.Postgres.CPU()
	m.server, m.hasCPU = cpuAfter-cpuBefore, ok
	m.ended = time.Now().UnixNano()

	after, err := q.count()
	if err != nil {
		return m, err
	}

	m.sent = make(map[string]int)
	m.connections = waitersConnections(slices.Concat(before, after))

	for _, c := range after {
		for text, n := range c.Sent {
			m.sent[text] += n
		}
	}

	for _, c := range before {
		for text, n := range c.Sent {
			m.sent[text] -= n
		}
	}

	return m, nil
}

// waitersConnections is how many connections a process has on average that doesn't hold the lock.
func waitersConnections(counts []count) float64 {
	var open, waiters int

	for _, c := range counts {
		if !c.Holds {
			open += c.Connections
			waiters++
		}
	}

	return float64(open) / float64(max(waiters, 1))
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
