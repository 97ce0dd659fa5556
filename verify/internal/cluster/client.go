package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/middle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// ClientRole and ResourceRole are the first argument with which this program starts itself again.
const (
	ClientRole   = "client"
	ResourceRole = "resource"
)

// Client is a client process. When one is killed, a new one follows.
type Client struct {
	Proxy *Proxy
	// Middle is nil unless there is one behind the Proxy.
	Middle *middle.Middle

	name    string
	driver  string
	cluster *Cluster

	// halting is held while the client is made to stand still, so that no other goroutine lets it
	// go on or takes the stop for its own.
	halting sync.Mutex

	// mu is held while one process takes the place of another.
	mu      sync.Mutex
	process *process
	config  traffic.Config
	runs    int
	// stops counts those at each place.
	stops map[string]int
}

// Name is the name of the process that runs now.
func (c *Client) Name() string {
	c.mu.Lock()
	defer c.mu.Unlock()

	return c.config.Name
}

// connect makes the client's way to the database.
func (c *Client) connect(upstream string) (err error) {
	if c.cluster.options.Middle {
		if c.Middle, err = middle.New(upstream); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}

		upstream = c.Middle.Address()
	}

	if c.Proxy, err = newProxy(c.name, upstream); err != nil && c.Middle != nil {
		err = errors.Join(err, c.Middle.Close())
	}

	return err
}

// start starts the client.
func (c *Client) start() error {
	c.runs++

	name := fmt.Sprintf("%s.%d", c.name, c.runs)
	address := url.URL{
		Scheme: "postgres", User: url.UserPassword(c.role(name), clientPassword),
		Host: c.Proxy.address(), Path: c.cluster.database,
		RawQuery: url.Values{
			"sslmode": {"disable"}, "application_name": {name}, "connect_timeout": {"5"},
		}.Encode(),
	}

	c.config = traffic.Config{
		Name: name, Driver: c.driver, URL: address.String(),
		History:  filepath.Join(c.cluster.Folder, name+".jsonl"),
		Resource: c.cluster.resourceAddress,
		Seed:     c.cluster.options.Seed<<16 + uint64(c.runs)<<8 + uint64(c.name[1]),
		Fenced:   c.cluster.options.Fenced, Think: c.cluster.options.Think, Waits: c.cluster.options.Waits,
		Extras: c.cluster.options.Extras,
	}

	config, err := json.Marshal(c.config)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	if c.process, err = startProcess(ClientRole, string(config)); err != nil {
		return err
	}

	c.process.reap()

	return nil
}

// Stop halts the client from outside, and lets it go on after d or when ctx ends. It
// reports whether the client stood still.
func (c *Client) Stop(ctx context.Context, d time.Duration) bool {
	c.halting.Lock()
	defer c.halting.Unlock()

	return c.halt(ctx, d, func(p *process) { p.signal(syscall.SIGSTOP) })
}

// StopAt is Stop, but has the client stop itself at a place, and waits until it is there. If it
// returns false, the client may still stop there.
func (c *Client) StopAt(ctx context.Context, place string, d time.Duration) bool {
	c.halting.Lock()
	defer c.halting.Unlock()

	stopped := c.halt(ctx, d, func(p *process) { p.tell(traffic.Pause + " " + place) })

	if stopped {
		c.mu.Lock()
		defer c.mu.Unlock()

		if c.stops == nil {
			c.stops = make(map[string]int)
		}

		c.stops[place]++
	}

	return stopped
}

// halt waits until the client stands still, and lets it go on after d or when ctx ends. If the
// client was killed meanwhile, this applies to its successor.
func (c *Client) halt(ctx context.Context, d time.Duration, stop func(*process)) bool {
	var told *process

	still := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()

		if c.process != told {
			told = c.process
			stop(told)
		}

		return told.stopped()
	}

	if ctx.Err() != nil {
		return false // it waited for its turn
	}

	defer c.Continue()

	for !still() {
		if !wait(ctx, stopPoll) {
			return false
		}
	}

	wait(ctx, d)

	return true
}

// stopPoll is how often halt looks whether a client stands still.
const stopPoll = 2 * time.Millisecond

// wait is false if ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Stops counts how often clients have stopped themselves, by place.
func (c *Cluster) Stops() map[string]int {
	all := make(map[string]int)

	for _, client := range c.Clients {
		client.mu.Lock()

		for place, n := range client.stops {
			all[place] += n
		}

		client.mu.Unlock()
	}

	return all
}

// Continue lets a client go on that has stopped itself.
func (c *Client) Continue() {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.process.signal(syscall.SIGCONT)
}

// Tell sends the client a command.
func (c *Client) Tell(command string) {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.process.tell(command)
}

// Kill ends the client by SIGKILL and starts another in its place. It fails if the client had ended
// by itself, which no client does before it is told to.
func (c *Client) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()

	e := history.Event{Kind: history.Killed, Detail: c.config.Name, At: history.Now()}

	if err := c.process.kill(); err != nil {
		return fmt.Errorf("%s: %w", c.config.Name, err)
	}

	c.cluster.Notes.Note(e)

	return c.start()
}

// quit makes the client close everything and end.
func (c *Client) quit() error {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.process.tell(traffic.Quit)

	// It may be about to stop itself, as it was told before.
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		select {
		case <-c.process.done:
			return c.process.endWithin(time.Second)
		default:
			c.process.signal(syscall.SIGCONT)
		}
	}

	return c.process.endWithin(40 * time.Second)
}
