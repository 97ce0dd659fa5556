package contender

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ismurov/pglocker/bench/internal/server"
)

// Bare shows what can hardly be surpassed by anything that keeps each lock in a row. One UPDATE takes all locks that
// were asked for while the one before was under way, another releases them, and nothing else is done. Grants are
// flushed, releases aren't. It promises nothing: a row that another transaction has locked holds up all, two clients
// may deadlock, a grant whose reply is lost stays, whoever knows a lock's id may release it, and goroutines of one client
// that ask for one lock at once are all told that they have it.
type Bare struct {
	Server *server.Postgres
	Table  Table
}

// NameBare is the contender that shows the limit.
const NameBare = "bare"

func (b *Bare) Name() string { return NameBare }

func (b *Bare) OnPostgres() bool { return true }

func (b *Bare) CPU() (time.Duration, bool) { return b.Server.CPU() }

// Open implements Contender. A pool of one is one connection for both statements, any other is one for each.
func (b *Bare) Open(ctx context.Context, o Options) (Client, error) {
	c := new(bareClient)

	texts := []string{
		`
		UPDATE public.%s
		   SET generation = generation + 1, owner = 'bare', acquired_at = clock_timestamp(),
		       expires_at = clock_timestamp() + interval '30 s'
		 WHERE lock_id %s AND expires_at <= clock_timestamp()
		RETURNING lock_id, generation`, `
		UPDATE public.%s
		   SET expires_at = clock_timestamp(), owner = NULL, acquired_at = NULL
		 WHERE lock_id %s AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off'
		RETURNING lock_id, generation`,
	}

	for i, verb := range []*bareVerb{&c.acquire, &c.release} {
		if len(c.conns) == 0 || o.Pool != 1 {
			conn, err := openBare(ctx, b.Server.URL())
			if err != nil {
				return nil, errors.Join(err, c.Close())
			}

			c.conns = append(c.conns, conn)
		}

		verb.conn = c.conns[len(c.conns)-1]

		if err := verb.prepare(ctx, fmt.Sprint(i), texts[i], b.Table); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}

	return c, nil
}

type bareClient struct {
	conns            []*bareConn
	acquire, release bareVerb
}

func (c *bareClient) TryAcquire(ctx context.Context, id string) (Release, error) {
	if err := c.acquire.do(ctx, id); err != nil {
		return nil, err
	}

	return func(ctx context.Context) error { return c.release.do(ctx, id) }, nil
}

func (c *bareClient) Acquire(ctx context.Context, id string) (Release, error) {
	return polling(ctx, time.Millisecond, func() (Release, error) { return c.TryAcquire(ctx, id) })
}

func (c *bareClient) Close() (err error) {
	for _, conn := range c.conns {
		err = errors.Join(err, conn.pg.Close(context.Background()))
	}

	return err
}

// bareConn is a connection on which one statement is under way at a time.
type bareConn struct {
	mu sync.Mutex
	pg *pgconn.PgConn
}

// openBare opens a connection that keeps each plan.
func openBare(ctx context.Context, url string) (*bareConn, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}

	_, err = conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}

	return &bareConn{pg: conn.PgConn()}, nil
}

// bareMost is how many requests go in one statement at most.
const bareMost = 512

// bareVerb gathers the requests for one statement.
type bareVerb struct {
	conn      *bareConn
	one, many string // names of statements

	mu      sync.Mutex
	busy    bool           // one is under way, or its sender was told
	pending []*bareRequest // mu guards it, and busy

	// Only the sender uses these.
	parameter []byte
	found     map[string]bool
}

type bareRequest struct {
	id   string
	told chan error
}

// errBareSend tells the first of those that wait to send.
var errBareSend = errors.New("bench: send")

var bareRequests = sync.Pool{New: func() any { return &bareRequest{told: make(chan error, 1)} }}

func (v *bareVerb) prepare(ctx context.Context, name, text string, table Table) (err error) {
	v.one, v.many, v.found = name+"one", name+"many", make(map[string]bool)

	for name, is := range map[string]string{v.one: "= $1", v.many: "= ANY ($1::text[])"} {
		_, failed := v.conn.pg.Prepare(ctx, name, fmt.Sprintf(text, table, is), nil)
		err = errors.Join(err, failed)
	}

	return err
}

func (v *bareVerb) do(ctx context.Context, id string) error {
	r := bareRequests.Get().(*bareRequest)
	defer bareRequests.Put(r)

	r.id = id

	v.mu.Lock()
	v.pending = append(v.pending, r)
	sends := !v.busy
	v.busy = true
	v.mu.Unlock()

	if !sends {
		if err := <-r.told; !errors.Is(err, errBareSend) {
			return err
		}
	}

	v.send(ctx)

	return <-r.told
}

// send sends what has gathered, the caller's own request first.
func (v *bareVerb) send(ctx context.Context) {
	v.mu.Lock()
	n := min(len(v.pending), bareMost)
	batch := v.pending[:n]
	v.pending = v.pending[n:]
	v.mu.Unlock()

	err := v.exchange(ctx, batch)

	for _, r := range batch {
		if err == nil && !v.found[r.id] {
			r.told <- ErrHeld
		} else {
			r.told <- err
		}
	}

	v.mu.Lock()
	defer v.mu.Unlock()

	if v.busy = len(v.pending) > 0; v.busy {
		v.pending[0].told <- errBareSend
	}
}

func (v *bareVerb) exchange(ctx context.Context, batch []*bareRequest) error {
	statement := v.one
	v.parameter = v.parameter[:0]

	if len(batch) == 1 {
		v.parameter = append(v.parameter, batch[0].id...)
	} else {
		statement = v.many

		// An array as the protocol has it: dimensions, NULLs, the type text, the length, and from where it counts.
		for _, n := range []int{1, 0, 25, len(batch), 1} {
			v.parameter = binary.BigEndian.AppendUint32(v.parameter, uint32(n))
		}

		for _, r := range batch {
			v.parameter = binary.BigEndian.AppendUint32(v.parameter, uint32(len(r.id)))
			v.parameter = append(v.parameter, r.id...)
		}
	}

	clear(v.found)
	v.conn.mu.Lock()
	defer v.conn.mu.Unlock()

	rows := v.conn.pg.ExecPrepared(ctx, statement, [][]byte{v.parameter}, []int16{1}, []int16{1, 1})
	for rows.NextRow() {
		v.found[string(rows.Values()[0])] = true
	}

	_, err := rows.Close()

	return err
}
