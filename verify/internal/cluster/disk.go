package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ismurov/pglocker/pgtesting"
)

// ErrNoDisk: this machine doesn't let the program mount a file system.
var ErrNoDisk = errors.New("cluster: no file system can be mounted: that takes root")

// diskSize leaves a server about half of it.
const diskSize = "160m"

// Disk is a small file system of a server's own, which can be filled.
type Disk struct{ folder string }

// NewDisk mounts one on the folder. Unmount ends it.
func NewDisk(folder string) (*Disk, error) {
	// The server's account has to get to it.
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size="+diskSize+",mode=0755"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDisk, err)
	}

	return &Disk{folder: folder}, nil
}

// StartServer starts a server that keeps its files on the disk. The server makes each new file of
// its log when it needs it, and so meets a full disk there, too.
func (d *Disk) StartServer(ctx context.Context, options ...pgtesting.ServerOption) (_ *pgtesting.Server, err error) {
	before, had := os.LookupEnv("TMPDIR")

	// A server's folder is made in the one for temporary files.
	if err := os.Setenv("TMPDIR", d.folder); err != nil {
		return nil, fmt.Errorf("cluster: disk: %w", err)
	}

	defer func() {
		if had {
			err = errors.Join(err, os.Setenv("TMPDIR", before))
		} else {
			err = errors.Join(err, os.Unsetenv("TMPDIR"))
		}
	}()

	return pgtesting.StartServer(ctx, append(options, pgtesting.WithSetting("wal_recycle", "off"))...)
}

func (d *Disk) ballast() string { return filepath.Join(d.folder, "ballast") }

// Fill takes all the space that is left.
func (d *Disk) Fill() error {
	file, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cluster: disk: %w", err)
	}
	defer file.Close()

	for {
		var stat unix.Statfs_t
		if err := unix.Statfs(d.folder, &stat); err != nil {
			return fmt.Errorf("cluster: disk: %w", err)
		}

		if stat.Bavail == 0 {
			return nil
		}

		info, err := file.Stat()
		if err != nil {
			return fmt.Errorf("cluster: disk: %w", err)
		}

		// Another process may have been faster.
		err = unix.Fallocate(int(file.Fd()), 0, info.Size(), int64(stat.Bavail)*stat.Bsize)
		if err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("cluster: disk: %w", err)
		}
	}
}

// Free empties the space that Fill took.
func (d *Disk) Free() error {
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cluster: disk: %w", err)
	}

	return nil
}

// Unmount ends the file system, even if a process still uses it.
func (d *Disk) Unmount() error {
	if err := unix.Unmount(d.folder, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cluster: disk: %w", err)
	}

	return nil
}
