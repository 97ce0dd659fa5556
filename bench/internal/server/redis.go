package server

import (
	"context"
	"os/exec"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// StartRedis starts a redis-server with its default configuration: it takes snapshots now
// and then, and flushes nothing when a lock is granted. The error matches
// [exec.ErrNotFound] if Redis isn't installed.
func StartRedis(ctx context.Context) (*Program, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, err
	}

	port, err := freePort()
	if err != nil {
		return nil, err
	}

	client := redis.NewClient(&redis.Options{Addr: local(port)})
	defer client.Close()

	p, err := start(ctx, path, local(port),
		func(dir string) []string {
			return []string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir}
		},
		func(ctx context.Context) error { return client.Ping(ctx).Err() })
	if err != nil {
		return nil, err
	}

	p.Version = versionOf(ctx, path)

	// "Redis server v=7.0.15 sha=..."
	for word := range strings.FieldsSeq(p.Version) {
		if v, ok := strings.CutPrefix(word, "v="); ok {
			p.Version = v
		}
	}

	return p, nil
}
