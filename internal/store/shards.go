package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"math/bits"
	"slices"
)

// shards are those of a table that Citus has distributed by lock_id, in the order of their hashes. Citus sends a
// statement to one server if all its ids are of one shard. It refuses one that locks rows of several. So if the shards
// are others by now, that costs time and nothing else.
type shards []shard

// shard is where the locks are that hash to least, or to more if that is less than the next shard's.
type shard struct{ least, node int32 }

// of is the shard of a lock.
func (s shards) of(id string) int {
	i, found := slices.BinarySearchFunc(s, hashOf(id), func(sh shard, hash int32) int { return cmp.Compare(sh.least, hash) })
	if !found {
		i--
	}

	return i
}

// sqlShards are the shards of the table $2 of the schema $1.
var sqlShards = qualified(`
SELECT s.shardminvalue::pg_catalog.int4, pg_catalog.min(p.groupid)
  FROM pg_catalog.pg_dist_shard AS s
  JOIN pg_catalog.pg_dist_placement AS p ON p.shardid {=} s.shardid
  JOIN pg_catalog.pg_class AS c ON c.oid {=} s.logicalrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid {=} c.relnamespace
 WHERE n.nspname {=} ($1::{text})::pg_catalog.name
   AND c.relname {=} ($2::{text})::pg_catalog.name
   AND s.shardminvalue IS NOT NULL
 GROUP BY s.shardminvalue`)

// findShards asks for the shards. There are none on another engine, nor if a batch by the same was refused: Citus
// hashes ids of some collations and encodings otherwise.
func (s *Store) findShards(ctx context.Context) (shards, error) {
	has, err := read(ctx, s, onPrimary(sqlHasCitus), nil, scanOne[bool])
	if err != nil || !has[0] {
		return nil, unlessForGood(err)
	}

	found, err := s.readShards(ctx)
	if err != nil {
		return nil, unlessForGood(err)
	}

	if misled := s.shape.misled.Load(); misled != nil && slices.Equal(misled.shards, found) {
		return nil, nil
	}

	return found, nil
}

func (s *Store) readShards(ctx context.Context) (shards, error) {
	scan := func(from scanner) (sh shard, err error) {
		err = from.Scan(&sh.least, &sh.node)

		return sh, err
	}

	found, err := read(ctx, s, onPrimary(sqlShards), []any{s.table.Schema, s.table.Name}, scan)
	slices.SortFunc(found, func(a, b shard) int { return cmp.Compare(a.least, b.least) })

	return found, err
}

func unlessForGood(err error) error {
	if err != nil && refusesForGood(err) {
		return nil
	}

	return err
}

// apart has the shards looked up anew, if a statement for several locks of one was refused because it is about several.
func (c *shapeCache) apart(sh *shape, err error) {
	if len(sh.shards) > 0 && hasState(err, codeFeatureNotSupported) {
		c.misled.Store(sh)
		c.found.CompareAndSwap(sh, nil)
	}
}

// hashOf is PostgreSQL's hashtext of a text in UTF-8: hash_bytes of src/common/hashfn.c, by Bob Jenkins.
func hashOf(text string) int32 {
	a := 0x9e3779b9 + uint32(len(text)) + 3923095
	b, c := a, a
	word := binary.LittleEndian.Uint32

	for ; len(text) >= 12; text = text[12:] {
		block := []byte(text[:12])
		a, b, c = a+word(block), b+word(block[4:]), c+word(block[8:])

		a = (a - c) ^ bits.RotateLeft32(c, 4)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 6)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 8)
		b += a
		a = (a - c) ^ bits.RotateLeft32(c, 16)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 19)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 4)
		b += a
	}

	var rest [12]byte
	if copy(rest[:8], text) == 8 {
		copy(rest[9:], text[8:]) // the lowest byte of c is the length's
	}

	a, b, c = a+word(rest[:]), b+word(rest[4:]), c+word(rest[8:])

	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)

	return int32(c)
}
