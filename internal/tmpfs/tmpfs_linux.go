// Package tmpfs has the throwaway servers of tests keep their files in memory. A test makes a
// database, which is some three hundred files, and drops it: on a disk that takes most of the
// time of all tests.
package tmpfs

import (
	"os"
	"syscall"
)

const (
	folder = "/dev/shm"
	// enough is several times what the servers of one package use, which is half a GiB at most.
	enough = 2 << 30

	magic  = 0x01021994 // TMPFS_MAGIC
	noExec = 8          // ST_NOEXEC
)

// Use has temporary folders be in memory from now on, where that is possible. A TMPDIR that was
// set is left as it is.
func Use() {
	var stat syscall.Statfs_t

	if os.Getenv("TMPDIR") != "" || syscall.Statfs(folder, &stat) != nil {
		return
	}

	// Tests run programs that they have put into a temporary folder.
	if stat.Type != magic || stat.Flags&noExec != 0 || stat.Bavail*uint64(stat.Bsize) < enough {
		return
	}

	probe, err := os.MkdirTemp(folder, "pglocker-")
	if err != nil {
		return
	}

	_ = os.Remove(probe)

	_ = os.Setenv("TMPDIR", folder) // neither name nor value is odd
}
