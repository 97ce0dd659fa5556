package suite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/citus"
	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/fault"
)

// errSkipped: this machine lacks what the job needs.
var errSkipped = errors.New("suite: skipped")

// ServerOptions make commits not awaited by default. The library has to ask for those that must be.
func ServerOptions() []pgtesting.ServerOption {
	return []pgtesting.ServerOption{
		pgtesting.WithSetting("synchronous_commit", "off"),
		pgtesting.WithSetting("max_connections", "400"),
		pgtesting.WithProgress(os.Stderr),
	}
}

// injection is as [fault.Fault.Inject].
type injection func(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error

// serverFor returns the server of all runs, or one of the job's own with a clock or a disk, which
// are added to the options. It returns none where the options have the addresses of the job's own
// set-up. stop is called after the job.
func (s *Suite) serverFor(
	ctx context.Context, job Job, folder string, options *cluster.Options,
) (_ *pgtesting.Server, stop func() error, inject injection, err error) {
	if job.Fault.Setup == nil {
		server, stop, err := s.singleServer(ctx, job, folder, options)

		return server, stop, job.Fault.Inject, err
	}

	setup, err := job.Fault.Setup(ctx, options.Clients)
	if errors.Is(err, fault.ErrMissing) || errors.Is(err, citus.ErrMissing) {
		return nil, nil, nil, fmt.Errorf("%w: %w", errSkipped, err)
	}

	if err != nil {
		return nil, nil, nil, err
	}

	options.Addresses = setup.Addresses()
	options.Engine, _ = setup.(cluster.Engine) // nil if it is none

	return nil, setup.Close, setup.Inject, nil
}

func (s *Suite) singleServer(
	ctx context.Context, job Job, folder string, options *cluster.Options,
) (_ *pgtesting.Server, stop func() error, err error) {
	switch {
	case job.Fault.Clock:
		return clockServer(ctx, folder, options)
	case job.Fault.Disk:
		return diskServer(ctx, folder, options)
	}

	if s.server == nil {
		if s.server, err = pgtesting.StartServer(ctx, ServerOptions()...); err != nil {
			return nil, nil, err
		}
	}

	return s.server, func() error { return nil }, nil
}

func clockServer(ctx context.Context, folder string, options *cluster.Options) (_ *pgtesting.Server, stop func() error, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, nil, fmt.Errorf("suite: %w", err)
	}

	options.Clock, err = cluster.NewClock(folder)
	if errors.Is(err, cluster.ErrNoFaketime) {
		return nil, nil, fmt.Errorf("%w: %w", errSkipped, err)
	}

	if err != nil {
		return nil, nil, err
	}

	server, err := pgtesting.StartServer(ctx, append(ServerOptions(), options.Clock.ServerOptions()...)...)
	if err != nil {
		return nil, nil, err
	}

	return server, server.Stop, nil
}

func diskServer(ctx context.Context, folder string, options *cluster.Options) (_ *pgtesting.Server, stop func() error, err error) {
	mount := filepath.Join(folder, "disk")
	if err := os.MkdirAll(mount, 0o755); err != nil {
		return nil, nil, fmt.Errorf("suite: %w", err)
	}

	options.Disk, err = cluster.NewDisk(mount)
	if errors.Is(err, cluster.ErrNoDisk) {
		return nil, nil, fmt.Errorf("%w: %w", errSkipped, err)
	}

	if err != nil {
		return nil, nil, err
	}

	server, err := options.Disk.StartServer(ctx, ServerOptions()...)
	if err != nil {
		return nil, nil, errors.Join(err, options.Disk.Unmount())
	}

	return server, func() error { return errors.Join(server.Stop(), options.Disk.Unmount()) }, nil
}
