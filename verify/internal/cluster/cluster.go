// Package cluster is what a run breaks: a database on a server, client processes, each behind a
// proxy of its own, and a fenced resource.
package cluster

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the coordinator's driver

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// Options say what to build.
type Options struct {
	Seed    uint64
	Clients int
	// Fenced: writers use guard and token.
	Fenced bool
	Think  time.Duration
	// Pooled: the clients go through a pooler in transaction mode.
	Pooled bool
	// Clock and Disk are the server's, or nil if it has that of this machine.
	Clock *Clock
	Disk  *Disk
	// Waits: the clients do nothing but wait for each other.
	Waits bool
	// Middle: the clients go through a bad pooler each, which is in front of all else.
	Middle bool
	// Extras is traffic that not every run has.
	Extras traffic.Extras
	// Prepare is SQL that is run before the clients start. It may set things for their role.
	Prepare string
	// Begin is called before the clients start, if it isn't nil.
	Begin func(*Cluster)
	// Addresses are the coordinator's way to the database, and each client's, if it isn't
	// always the same server.
	Addresses []string
	// Engine spreads the database over several servers, if it isn't nil. Then there are addresses, too.
	Engine Engine
}

// Engine is a distributed database.
type Engine interface {
	// Create makes a database of that name on each of its servers.
	Create(ctx context.Context, database string) error
	// Spread makes the audit of the lock table, and spreads what the clients write to like that table.
	Spread(ctx context.Context, db *sql.DB) error
	// Audit reads what was written down on each server. Seq is a transition's number among those of all servers.
	Audit(ctx context.Context) ([]*audit.Transition, error)
}

// driver is the driver of the nth client. The last client has lib/pq. Behind a pooler the one
// before has it, too, in a wrapper that hides it.
func (o Options) driver(n int) string {
	switch {
	case n == o.Clients-1:
		return traffic.DriverPq
	case n == o.Clients-2 && o.Pooled:
		return traffic.DriverWrapped
	}

	return traffic.DriverPgx
}

// Cluster is a running set-up.
type Cluster struct {
	Server  *pgtesting.Server
	Clients []*Client
	// Admin goes to the server directly.
	Admin *sql.DB
	// Notes is the coordinator's own history.
	Notes *history.Recorder
	// Folder is where all histories are.
	Folder string
	// Pooler is nil unless the clients go through one.
	Pooler *Pooler
	// Disk is nil unless the server has one for itself.
	Disk *Disk
	// Injected counts how often a fault broke something.
	Injected atomic.Int64

	died            atomic.Int64
	options         Options
	database        string
	resource        *process
	resourceAddress string
}

// Start makes a database of its own on the server, with its audit, and starts the
// clients. The server is nil where the options have addresses. Close ends all of it.
func Start(ctx context.Context, server *pgtesting.Server, folder string, options Options) (_ *Cluster, err error) {
	c := &Cluster{Server: server, Folder: folder, Disk: options.Disk, options: options}

	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()

	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}

	if c.Notes, err = history.NewRecorder(filepath.Join(folder, "coordinator.jsonl"), "coordinator"); err != nil {
		return nil, err
	}

	if err := c.createDatabase(ctx); err != nil {
		return nil, err
	}

	if err := c.startResource(); err != nil {
		return nil, err
	}

	var upstream string
	if server != nil {
		upstream = "127.0.0.1:" + strconv.Itoa(server.Port())
	}

	if options.Pooled {
		if c.Pooler, err = startPooler(server.Port(), c.poolerDied); err != nil {
			return nil, err
		}

		upstream = c.Pooler.address()
	}

	for n := range options.Clients {
		client := &Client{name: fmt.Sprintf("c%d", n+1), driver: options.driver(n), cluster: c}

		if options.Addresses != nil {
			upstream = options.Addresses[n+1]
		}

		if err := client.connect(upstream); err != nil {
			return nil, err
		}

		c.Clients = append(c.Clients, client)
	}

	// Trouble that has to be there from the beginning is made before a client connects.
	if options.Begin != nil {
		options.Begin(c)
	}

	for _, client := range c.Clients {
		if err := client.start(); err != nil {
			return nil, err
		}
	}

	return c, nil
}

func (c *Cluster) createDatabase(ctx context.Context) error {
	u, err := c.url()
	if err != nil {
		return err
	}

	c.database = fmt.Sprintf("run_%d", history.Now())

	create := func(ctx context.Context, database string) error { return createOn(ctx, u.String(), database) }
	if c.options.Engine != nil {
		create = c.options.Engine.Create
	}

	if err := create(ctx, c.database); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	u.Path = c.database
	u.RawQuery += "&application_name=coordinator"

	if c.Admin, err = sql.Open("pgx", u.String()); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	switch {
	case c.options.Engine != nil: // each costs sessions on all servers
		c.Admin.SetMaxIdleConns(mostOfEngine)
		c.Admin.SetMaxOpenConns(mostOfEngine)
	case c.options.Addresses != nil:
		c.Admin.SetMaxIdleConns(-1) // one that was kept may lead to another server
	}

	if err := pglocker.MigrateDB(ctx, c.Admin, &pglocker.Config{Distributed: c.options.Engine != nil}); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	if c.options.Engine != nil {
		if err := c.options.Engine.Spread(ctx, c.Admin); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}

		return c.createRoles(ctx)
	}

	if _, err := c.Admin.ExecContext(ctx, audit.SQL+audit.BareSQL+traffic.CountersSQL); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	if c.options.Clock != nil {
		if _, err := c.Admin.ExecContext(ctx, audit.RealTimeSQL); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}

	return c.createRole(ctx)
}

// createOn makes a database on the server of the URL.
func createOn(ctx context.Context, url, database string) error {
	root, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer root.Close()

	_, err = root.ExecContext(ctx, `CREATE DATABASE `+database)

	return err
}

// Audit reads the audit.
func (c *Cluster) Audit(ctx context.Context) ([]*audit.Transition, error) {
	if c.options.Engine != nil {
		return c.options.Engine.Audit(ctx)
	}

	return audit.Load(ctx, c.Admin)
}

// url is that of the database "postgres".
func (c *Cluster) url() (*url.URL, error) {
	if c.options.Addresses != nil {
		return &url.URL{
			Scheme: "postgres", User: url.UserPassword("postgres", "postgres"),
			Host: c.options.Addresses[0], Path: "postgres", RawQuery: "sslmode=disable",
		}, nil
	}

	u, err := url.Parse(c.Server.URL())
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}

	return u, nil
}

func (c *Cluster) startResource() (err error) {
	c.resource, err = startProcess(ResourceRole,
		filepath.Join(c.Folder, "resource.jsonl"), strconv.FormatBool(c.options.Fenced))
	if err != nil {
		return err
	}

	c.resourceAddress, err = c.resource.output.ReadString('\n')
	c.resourceAddress = strings.TrimSpace(c.resourceAddress)

	c.resource.reap()

	if err != nil {
		return fmt.Errorf("cluster: the resource: %w", err)
	}

	return nil
}

// Crash runs what may make the server lose what it hasn't flushed, and records when.
func (c *Cluster) Crash(how func() error) error {
	e := history.Event{Kind: history.Crash, From: history.Now()}
	err := how()
	c.Notes.Note(e)

	return err
}

// poolerDied records that the pooler ended by itself.
func (c *Cluster) poolerDied(why string) {
	c.died.Add(1)
	c.Notes.Note(history.Event{Kind: history.PoolerDied, Detail: why})
}

// Died is how often the pooler ended by itself and was started again.
func (c *Cluster) Died() int64 { return c.died.Load() }

// Healed records that nothing is broken any more, and returns the note.
func (c *Cluster) Healed() history.Event {
	names := make([]string, 0, len(c.Clients))
	for _, client := range c.Clients {
		names = append(names, client.Name())
	}

	e := history.Event{Kind: history.Healed, Detail: strings.Join(names, " "), At: history.Now(), Value: int64(c.behind())}
	c.Notes.Note(e)

	return e
}

// behind is how much longer than their TTL leases may last, since the clock was set back.
func (c *Cluster) behind() time.Duration {
	if c.options.Clock == nil {
		return 0
	}

	return c.options.Clock.Behind()
}

// Quit ends the clients in an orderly way. It records clients that don't end, and what is left of
// them at the server.
func (c *Cluster) Quit(ctx context.Context) error {
	var wait sync.WaitGroup

	for _, client := range c.Clients {
		wait.Go(func() {
			if err := client.quit(); err != nil {
				c.Notes.Note(history.Event{Kind: history.Leak, Detail: client.name + ": " + err.Error()})
			}
		})
	}

	wait.Wait()

	c.dropIdle()

	return c.recordSessions(ctx)
}

// dropIdle closes the coordinator's idle sessions. A fault may have ended them at the server, and
// their next user would get the error.
func (c *Cluster) dropIdle() {
	c.Admin.SetMaxIdleConns(-1)

	switch {
	case c.options.Engine != nil:
		c.Admin.SetMaxIdleConns(mostOfEngine)
	case c.options.Addresses == nil:
		c.Admin.SetMaxIdleConns(mostIdle)
	}
}

// mostOfEngine sessions the coordinator has with a distributed engine.
const mostOfEngine = 8

// mostIdle sessions the coordinator keeps, where they can't lead to another server.
const mostIdle = 2

// sessionsGoneWithin is how long the server may take to notice that a client has left.
const sessionsGoneWithin = 15 * time.Second

// recordSessions records which sessions of clients the server still has. A pooler's stay.
func (c *Cluster) recordSessions(ctx context.Context) error {
	if c.Pooler != nil {
		return nil
	}

	var left int

	for deadline := time.Now().Add(sessionsGoneWithin); ; time.Sleep(20 * time.Millisecond) {
		err := c.Admin.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE 'c%.%'`).Scan(&left)
		if err != nil {
			return fmt.Errorf("cluster: %w", err)
		}

		if left == 0 {
			return nil
		}

		if time.Now().After(deadline) {
			c.Notes.Note(history.Event{Kind: history.Leak, Detail: fmt.Sprintf("the server still has %d sessions of clients", left)})

			return nil
		}
	}
}

// Close ends everything that still runs, except the server. The histories stay.
func (c *Cluster) Close() error {
	var errs []error

	for _, client := range c.Clients {
		client.mu.Lock()
		if client.process != nil {
			_ = client.process.kill() // most have ended as they were told to
		}
		client.mu.Unlock()
		client.Proxy.proxy.Stop()

		if client.Middle != nil {
			errs = append(errs, client.Middle.Close())
		}
	}

	if c.Pooler != nil {
		errs = append(errs, c.Pooler.stop())
	}

	if c.resource != nil {
		_ = c.resource.input.Close()
		errs = append(errs, c.resource.endWithin(5*time.Second))
	}

	if c.Admin != nil {
		errs = append(errs, c.Admin.Close())
	}

	if c.Notes != nil {
		errs = append(errs, c.Notes.Close())
	}

	return errors.Join(errs...)
}
