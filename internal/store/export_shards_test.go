package store

import "context"

// HashOf is the hash by which Citus finds a lock's shard.
var HashOf = hashOf

// SpreadOver has a Store speak the plain dialect, to a server that it takes for one of Citus with n shards, each on a worker of its own.
func SpreadOver(ctx context.Context, s *Store, n int) error {
	s.Speak(DialectPlain)

	sh, err := s.shapeOf(ctx)
	if err != nil {
		return err
	}

	spread := *sh
	for i := range n {
		spread.shards = append(spread.shards, shard{least: int32(-1<<31 + i<<32/n), node: int32(i)})
	}

	s.shape.found.Store(&spread)

	return nil
}

// Shards is how many shards a Store knows.
func (s *Store) Shards(ctx context.Context) (int, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return 0, err
	}

	return len(sh.shards), nil
}
