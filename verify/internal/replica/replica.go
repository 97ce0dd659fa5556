// Package replica is a primary and its standby, which take each other's place again and again.
package replica

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/route"
)

// Pair is two servers.
type Pair struct {
	Primary, Standby *pgtesting.Server
	// Link is the standby's way to the primary. Turned to nowhere, it receives no more.
	Link *route.Route
	// Synchronous: commits are acknowledged when the standby has them on disk.
	Synchronous bool
}

// standbyName is the standby's name at the primary.
const standbyName = "standby"

// patience bounds each wait for something that a server does within a second.
const patience = 30 * time.Second

// Start starts both servers. Stop ends them.
func Start(ctx context.Context, synchronous bool, options ...pgtesting.ServerOption) (started *Pair, err error) {
	p := &Pair{Synchronous: synchronous}

	defer func() {
		if err != nil {
			started, err = nil, errors.Join(err, p.Stop())
		}
	}()

	if p.Link, err = route.New(""); err != nil {
		return nil, err
	}

	// No slot keeps what the standby has not received.
	options = append(options, pgtesting.WithSetting("wal_keep_size", "512MB"))

	for _, server := range []**pgtesting.Server{&p.Primary, &p.Standby} {
		if *server, err = pgtesting.StartServer(ctx, options...); err != nil {
			return nil, fmt.Errorf("replica: %w", err)
		}
	}

	if err := p.Standby.Kill(); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}

	return p, p.Join(ctx)
}

// Stop ends both servers, whatever state they are in.
func (p *Pair) Stop() error {
	var errs []error

	for _, server := range []*pgtesting.Server{p.Standby, p.Primary} {
		if server != nil {
			errs = append(errs, server.Stop())
		}
	}

	if p.Link != nil {
		errs = append(errs, p.Link.Close())
	}

	return errors.Join(errs...)
}

// Address is where a server listens.
func Address(server *pgtesting.Server) string {
	return "127.0.0.1:" + strconv.Itoa(server.Port())
}

// Join makes the server that is down the primary's standby, from a copy of the primary, and waits
// until it has received everything. If the pair is synchronous, everything acknowledged after Join
// returns is on the standby.
func (p *Pair) Join(ctx context.Context) error {
	p.Link.To(Address(p.Primary))

	if err := p.copyPrimary(ctx); err != nil {
		return fmt.Errorf("replica: %w", err)
	}

	if err := p.Standby.Start(ctx); err != nil {
		return fmt.Errorf("replica: %w", err)
	}

	err := p.onPrimary(ctx, func(ctx context.Context, conn *sql.Conn) error {
		if err := await(ctx, conn, `SELECT count(*) = 1 FROM pg_stat_replication
			WHERE application_name = '`+standbyName+`' AND state = 'streaming'`); err != nil || !p.Synchronous {
			return err
		}

		err := execute(ctx, conn,
			`ALTER SYSTEM SET synchronous_standby_names = '`+standbyName+`'`, `SELECT pg_reload_conf()`)
		if err != nil {
			return err
		}

		if err := await(ctx, conn, `SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'`); err != nil {
			return err
		}

		// A commit that is awaited once the setting holds covers all earlier ones that weren't
		// awaited.
		return execute(ctx, conn, `SET synchronous_commit = on`, `SELECT pg_logical_emit_message(true, 'verify', '')`)
	})
	if err != nil {
		return fmt.Errorf("replica: the standby doesn't follow: %w; its log:\n%s", err, p.Standby.Log())
	}

	return nil
}

// copyPrimary replaces the standby's data by a copy of the primary's.
func (p *Pair) copyPrimary(ctx context.Context) error {
	dir := p.Standby.DataDir()

	info, err := os.Stat(dir)
	if err != nil {
		return err
	}

	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}

	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	backup := exec.CommandContext(ctx, filepath.Join(p.Primary.BinDir(), "pg_basebackup"),
		"-D", dir, "-X", "stream", "-c", "fast", "-R", "--no-sync", "-d", fmt.Sprintf(
			"host=127.0.0.1 port=%d user=postgres password=postgres application_name=%s", p.Link.Port(), standbyName))
	backup.Dir = "/"
	backup.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	// The copy belongs to the account that runs the server.
	if owner := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 {
		backup.SysProcAttr.Credential = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	}

	if out, err := backup.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}

	return nil
}

// Received waits until the standby has received what the primary had written when it was
// called, and returns that moment.
func (p *Pair) Received(ctx context.Context) (at int64, err error) {
	at = history.Now()

	var position string

	err = p.onPrimary(ctx, func(ctx context.Context, conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&position)
	})
	if err != nil {
		return 0, fmt.Errorf("replica: %w", err)
	}

	err = on(ctx, p.Standby, func(ctx context.Context, conn *sql.Conn) error {
		return await(ctx, conn, `SELECT pg_last_wal_receive_lsn() >= '`+position+`'::pg_lsn`)
	})
	if err != nil {
		return 0, fmt.Errorf("replica: %w", err)
	}

	return at, nil
}

// CancelWaits cancels what waits on the primary for the standby.
func (p *Pair) CancelWaits(ctx context.Context) error {
	err := p.onPrimary(ctx, func(ctx context.Context, conn *sql.Conn) error {
		return execute(ctx, conn, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
	})
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}

	return nil
}

// Promote makes the standby the primary. [Pair.Join] then makes a standby of the old primary,
// whatever state it is in. The new primary acknowledges commits alone. If it is to be strict, it
// acknowledges none before there is another standby.
func (p *Pair) Promote(ctx context.Context, strict bool) error {
	err := on(ctx, p.Standby, func(ctx context.Context, conn *sql.Conn) error {
		if err := execute(ctx, conn, `SELECT pg_promote(false)`); err != nil {
			return err
		}

		return await(ctx, conn, `SELECT NOT pg_is_in_recovery()`)
	})
	if err != nil {
		return fmt.Errorf("replica: no promotion: %w; its log:\n%s", err, p.Standby.Log())
	}

	p.Primary, p.Standby = p.Standby, p.Primary

	if !p.Synchronous || strict {
		return nil
	}

	return p.onPrimary(ctx, func(ctx context.Context, conn *sql.Conn) error {
		return execute(ctx, conn, `ALTER SYSTEM RESET synchronous_standby_names`, `SELECT pg_reload_conf()`)
	})
}

func (p *Pair) onPrimary(ctx context.Context, run func(context.Context, *sql.Conn) error) error {
	return on(ctx, p.Primary, run)
}

// on runs something over a connection of its own.
func on(ctx context.Context, server *pgtesting.Server, run func(context.Context, *sql.Conn) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	db, err := sql.Open("pgx", server.URL())
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, db.Close()) }()

	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()

	return run(ctx, conn)
}

func execute(ctx context.Context, conn *sql.Conn, statements ...string) error {
	for _, statement := range statements {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}

	return nil
}

// await asks until the answer is true.
func await(ctx context.Context, conn *sql.Conn, question string) error {
	for {
		var yes sql.NullBool
		if err := conn.QueryRowContext(ctx, question).Scan(&yes); err != nil {
			return fmt.Errorf("%s: %w", question, err)
		}

		if yes.Bool {
			return nil
		}

		time.Sleep(2 * time.Millisecond)
	}
}
