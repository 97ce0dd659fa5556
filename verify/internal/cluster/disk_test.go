package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDisk: a full disk takes no more until it is freed, and is gone once it is unmounted.
func TestDisk(t *testing.T) {
	t.Parallel()

	folder := t.TempDir()

	disk, err := NewDisk(folder)
	if errors.Is(err, ErrNoDisk) {
		t.Skip(err)
	}

	if err != nil {
		t.Fatal(err)
	}

	mounted := true

	t.Cleanup(func() {
		if mounted {
			_ = disk.Unmount()
		}
	})

	path := filepath.Join(folder, "file")
	write := func() error { return os.WriteFile(path, make([]byte, 1<<16), 0o600) }

	for range 2 {
		if err := write(); err != nil {
			t.Fatalf("on a disk with space left: %v", err)
		}

		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}

		// It fills what became free since, too.
		for range 2 {
			if err := disk.Fill(); err != nil {
				t.Fatal(err)
			}
		}

		if err := write(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("on a full disk: %v", err)
		}

		if err := disk.Free(); err != nil {
			t.Fatal(err)
		}
	}

	if err := disk.Unmount(); err != nil {
		t.Fatal(err)
	}

	mounted = false

	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}
