// Package workload has the twelve workloads, each the same code for every contender. In each
// round all contenders run one after the other, in another order each time, so a noisy
// machine slows all of them down alike.
package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/server"
)

type Bench struct {
	Plan Plan
	Log  *result.Log
	Say  func(format string, args ...any)

	Postgres *server.Postgres
	Redis    *server.Program // nil if it isn't installed
	Etcd     *server.Program // nil if it isn't installed

	// Chosen are the options that served each contender best.
	Chosen map[string]contender.Options

	contenders []contender.Contender
	pgbench    *contender.Pgbench // nil if it isn't installed
	own        contender.Table    // pglocker's, of SmallTable locks
}

type Workload struct {
	Name  string
	Title string
	Run   func(*Bench, context.Context) error
}

// Workloads are in the order in which they run.
var Workloads = []Workload{
	{"W1", "one goroutine, distinct locks", (*Bench).Alone},
	{"W2", "many goroutines, distinct locks", (*Bench).Together},
	{"W3", "one contended lock", (*Bench).HandOver},
	{"W4", "held locks, kept alive", (*Bench).KeepAlive},
	{"W5", "a large table", (*Bench).LargeTable},
	{"W6", "the table over time", (*Bench).Churn},
	{"W7", "failed attempts", (*Bench).Failed},
	{"W8", "a fresh table", (*Bench).FreshTable},
	{"W9", "recipes", (*Bench).Recipes},
	{"W10", "clients of one connection", (*Bench).Separate},
	{"W11", "cold processes", (*Bench).Cold},
	{"W12", "many processes wait for one lock", (*Bench).Queue},
}

func (b *Bench) Prepare(ctx context.Context) error {
	var err error
	if b.own, err = contender.NewTable(ctx, b.Postgres.URL(), "pglocker", b.Plan.SmallTable); err != nil {
		return err
	}

	byHand, err := contender.NewTable(ctx, b.Postgres.URL(), "by_hand", b.Plan.SmallTable)
	if err != nil {
		return err
	}

	bare, err := contender.NewTable(ctx, b.Postgres.URL(), "bare", b.Plan.SmallTable)
	if err != nil {
		return err
	}

	b.contenders = []contender.Contender{
		&contender.Pglocker{Server: b.Postgres, Table: b.own},
		&contender.Pglocker{Server: b.Postgres, Table: b.own, Watched: true},
		&contender.Floor{Server: b.Postgres, Table: byHand},
		&contender.Advisory{Server: b.Postgres},
		&contender.Bare{Server: b.Postgres, Table: bare},
	}

	if b.Redis != nil {
		b.contenders = append(b.contenders, &contender.Redislock{Server: b.Redis})
	}

	if b.Etcd != nil {
		b.contenders = append(b.contenders, &contender.Etcd{Server: b.Etcd})
	}

	path, err := b.Postgres.Program("pgbench")
	if err != nil {
		b.Say("pgbench is not installed: it is left out")

		return nil
	}

	b.pgbench = &contender.Pgbench{Server: b.Postgres, Table: byHand, Path: path}

	return nil
}

func (b *Bench) HasPgbench() bool { return b.pgbench != nil }

type entry struct {
	name string
	run  func(ctx context.Context) error
	// rounds is how many rounds it takes part in; 0: all.
	rounds int
}

// interleave runs all entries in every round. Each round begins with another.
func interleave(ctx context.Context, rounds int, entries []entry) error {
	for round := range rounds {
		for i := range entries {
			e := entries[(i+round)%len(entries)]
			if e.rounds > 0 && round >= e.rounds {
				continue
			}

			if err := e.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}

	return nil
}

// openAll opens clients, each of which stands for one process.
func openAll(ctx context.Context, c contender.Contender, o contender.Options, n int) (opened []contender.Client, closeAll func() error, err error) {
	closeAll = func() (err error) {
		for _, client := range opened {
			err = errors.Join(err, client.Close())
		}

		return err
	}

	for range n {
		client, err := c.Open(ctx, o)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}

		opened = append(opened, client)
	}

	return opened, closeAll, nil
}

func (b *Bench) only(names ...string) []contender.Contender {
	var found []contender.Contender

	for _, c := range b.contenders {
		if slices.Contains(names, c.Name()) {
			found = append(found, c)
		}
	}

	return found
}
