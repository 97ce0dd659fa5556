package server

import (
	"context"
	"os/exec"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// StartEtcd starts a cluster of one etcd with its default configuration, which flushes
// every write. The error matches [exec.ErrNotFound] if etcd isn't installed.
func StartEtcd(ctx context.Context) (*Program, error) {
	path, err := exec.LookPath("etcd")
	if err != nil {
		return nil, err
	}

	port, err := freePort()
	if err != nil {
		return nil, err
	}

	peerPort, err := freePort()
	if err != nil {
		return nil, err
	}

	endpoint, peer := "http://"+local(port), "http://"+local(peerPort)

	p, err := start(ctx, path, local(port),
		func(dir string) []string {
			return []string{
				"--name", "default", "--data-dir", dir + "/data",
				"--listen-client-urls", endpoint, "--advertise-client-urls", endpoint,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
				"--initial-cluster", "default=" + peer,
			}
		},
		func(ctx context.Context) error { return pingEtcd(ctx, local(port)) })
	if err != nil {
		return nil, err
	}

	p.Version = strings.TrimPrefix(versionOf(ctx, path), "etcd Version: ")

	return p, nil
}

func pingEtcd(ctx context.Context, address string) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()

	// A write: a cluster without a leader answers a request for its status.
	_, err = client.Put(ctx, "ready", "")

	return err
}
