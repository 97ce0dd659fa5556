package store

import (
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// arguments are those for the driver. pgx uses names unless it is told not to.
func (s *Store) arguments(args []any) []any {
	if !s.native.Load() {
		return arrayLiterals(args)
	}

	if !s.nameless() {
		return args
	}

	return withoutName(args)
}

func withoutName(args []any) []any { return append([]any{pgx.QueryExecModeExec}, args...) }

// sentOnce are the texts that were sent.
type sentOnce struct {
	mu    sync.RWMutex
	texts map[string]bool
	// atOnce: the user has told the driver to send each statement at once, without a name.
	atOnce atomic.Bool
}

// heed does what the user has told pgx about names.
func (s *Store) heed(cfg *pgx.ConnConfig) {
	switch mode := cfg.DefaultQueryExecMode; {
	case mode == pgx.QueryExecModeDescribeExec, // it parses in one message and runs in another, under no name: see [way]
		mode == pgx.QueryExecModeCacheStatement && cfg.StatementCacheCapacity <= 0,
		mode == pgx.QueryExecModeCacheDescribe && cfg.DescriptionCacheCapacity <= 0:
		s.unnamed.Store(true)
	case mode == pgx.QueryExecModeExec, mode == pgx.QueryExecModeSimpleProtocol:
		s.sent.atOnce.Store(true)
	}
}

// byName reports whether a statement goes behind sqlByIndex, under a name. It does from its second use on: to prepare it
// takes a round trip, which a process that takes a lock and ends would not make up for. See docs/adr/0007.
func (s *Store) byName(text string) bool {
	return !s.nameless() && (s.sent.atOnce.Load() || s.sent.before(text))
}

// before reports whether a text was sent before.
func (o *sentOnce) before(text string) bool {
	o.mu.RLock()
	before := o.texts[text]
	o.mu.RUnlock()

	if !before {
		o.mu.Lock()
		o.texts[text] = true
		o.mu.Unlock()
	}

	return before
}

// lostStatement reports whether a statement failed only because a pooler lost its name. From then
// on no names are used.
func (s *Store) lostStatement(err error, named bool) bool {
	lost := lostName(err)
	if lost {
		s.unnamed.Store(true)
	}

	return lost && named
}
