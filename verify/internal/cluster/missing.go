package cluster

import (
	"errors"
	"fmt"
	"os"
)

// ErrNoFaketime: libfaketime, by which a server has a clock of its own, is not installed.
var ErrNoFaketime = errors.New("cluster: libfaketime is not installed")

// Missing is what this machine lacks for options that need a pooler, a clock that can be set, or a
// disk of the server's own. It is nil if it lacks nothing.
func Missing(pooled, clock, disk bool) error {
	if pooled {
		if _, err := findPooler(); err != nil {
			return err
		}
	}

	if clock && findFaketime() == "" {
		return ErrNoFaketime
	}

	if disk {
		return tryDisk()
	}

	return nil
}

// tryDisk mounts a disk, which is the one way to find out, and unmounts it.
func tryDisk() (err error) {
	folder, err := os.MkdirTemp("", "pglocker-verify-disk-")
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	defer func() { err = errors.Join(err, os.Remove(folder)) }()

	disk, err := NewDisk(folder)
	if err != nil {
		return err
	}

	return disk.Unmount()
}
