package traffic

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// The coordinator writes these to a client's input, a line each. The end of the input ends the
// client, too, without any cleaning up.
const (
	// Quit makes the client close everything, look for what is left, and exit.
	Quit = "quit"
	// Pause, with a place, makes the client stop itself when it is there next.
	Pause = "pause"
	// PauseNowhere takes that back.
	PauseNowhere = Pause + " nowhere"
	// Exhaust, with a duration, makes the client take all connections of its pool.
	Exhaust = "exhaust"
)

// Exhausted: the client's pool had no connection left, after the client was told to use it up.
const Exhausted history.Kind = "exhausted"

// PausePlaces are the places where a client can be told to stop itself.
func PausePlaces() []string {
	return append(WriterPlaces(), string(inRenewer), string(inRequest))
}

// WriterPlaces are the places of writers: between reading and writing, and in a transaction before
// a guard that comes last but for the writes. The latter is only where writers are fenced.
func WriterPlaces() []string { return append(UnfencedPlaces(), string(beforeGuard)) }

// UnfencedPlaces are the places of writers without guard and token.
func UnfencedPlaces() []string { return []string{string(inCritical)} }

// Main is the client process.
func Main(config string, commands io.Reader) error {
	var cfg Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return fmt.Errorf("traffic: %w", err)
	}

	rec, err := history.NewRecorder(cfg.History, cfg.Name)
	if err != nil {
		return err
	}

	c, err := open(cfg, rec)
	if err != nil {
		return err
	}

	stop := make(chan struct{})
	watching := make(chan struct{})

	go func() {
		defer close(watching)
		watchStalls(rec, stop)
	}()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	var exhausting sync.WaitGroup

	done := make(chan struct{})

	go func() {
		defer close(done)
		c.run(ctx)
	}()

	for lines := bufio.NewScanner(commands); ; {
		if !lines.Scan() {
			return errors.New("traffic: the coordinator is gone")
		}

		verb, arg, _ := strings.Cut(lines.Text(), " ")

		switch verb {
		case Quit:
			cancel()
			<-done
			exhausting.Wait()
			c.leave()
			close(stop)
			<-watching

			return rec.Close()
		case Pause:
			c.pauser.at(place(arg))
		case Exhaust:
			d, err := time.ParseDuration(arg)
			if err != nil {
				return fmt.Errorf("traffic: %w", err)
			}

			exhausting.Go(func() { c.exhaust(ctx, d) })
		}
	}
}

// exhaust takes as many connections of the pool as it gets, and keeps them.
func (c *client) exhaust(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()

	for range poolSize {
		conn, err := c.db.Conn(ctx)
		if err != nil {
			return
		}

		defer func() { _ = conn.Close() }()
	}

	c.rec.Note(history.Event{Kind: Exhausted})
	<-ctx.Done()
}

const (
	closeWithin = 15 * time.Second
	// settleLooks is how often the client looks, a pulse apart, whether the library's goroutines
	// are gone. Close has waited for them. A goroutine that has said that it is done may still be
	// the scheduler's.
	settleLooks = 20
	// settleWithin is how long the connections that have ended may take to be gone. The drivers
	// close them in goroutines of their own. The pool counts as in use, and opens one after the
	// other, connections for requests that have left since. On a busy machine that takes seconds. A
	// connection that was not given back stays for ever.
	settleWithin = 15 * time.Second
)

// leave closes the Locker, and records what it left behind.
func (c *client) leave() {
	leak := func(format string, args ...any) {
		c.rec.Note(history.Event{Kind: history.Leak, Detail: fmt.Sprintf(format, args...)})
	}

	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()

	err := c.locker.Close(ctx)
	if c.bare != nil {
		err = errors.Join(err, c.bare.Close(ctx))
	}

	if err != nil {
		leak("%v; running: %s", err, goroutines())

		return
	}

	left := goroutines()
	for n := 1; left != "" && n < settleLooks; n++ {
		time.Sleep(pulse)

		left = goroutines()
	}

	if left != "" {
		leak("after Close there run: %s", left)
	}

	for deadline := time.Now().Add(settleWithin); ; time.Sleep(pulse) {
		inUse := c.db.Stats().InUse
		if inUse == 0 {
			break
		}

		if time.Now().After(deadline) {
			leak("after Close %d connections of the pool are in use", inUse)

			break
		}
	}

	// A driver may complain that it can't say goodbye over a broken connection. The server knows
	// what is left of that.
	_ = c.db.Close()
}

// goroutines returns the stacks of goroutines that run the library's code.
func goroutines() string {
	buffer := make([]byte, 1<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]

	var found []string

	for stack := range strings.SplitSeq(string(buffer), "\n\n") {
		if strings.Contains(stack, "github.com/ismurov/pglocker.") ||
			strings.Contains(stack, "github.com/ismurov/pglocker/internal/") {
			found = append(found, stack)
		}
	}

	return strings.Join(found, "\n\n")
}
