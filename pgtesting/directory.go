package pgtesting

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// directoryPrefix begins the names of the directories that a watchdog may remove.
const directoryPrefix = "pgtesting-"

func randomName(prefix string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// temporaryFolders returns where a server's directory may be, best first.
func temporaryFolders() []string {
	folders := []string{os.TempDir(), "/tmp", "/var/tmp"}
	return slices.DeleteFunc(folders, func(dir string) bool {
		// The watchdog reads paths as lines.
		return !filepath.IsAbs(dir) || strings.ContainsAny(dir, "\r\n")
	})
}

// reachableFolder returns the first of the folders in which the account can have a
// directory. TMPDIR may be below a folder that only root can enter.
func reachableFolder(ctx context.Context, account *account, folders []string) (string, error) {
	var errs []error
	for _, dir := range folders {
		dir, err := filepath.EvalSymlinks(dir)
		if err == nil {
			err = account.enter(ctx, dir)
		}
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("pgtesting: no folder for temporary files that %s can reach: %w",
		account, errors.Join(errs...))
}

// removeAll is os.RemoveAll, repeated: a dying process may still create files.
func removeAll(dir string) error {
	var err error
	for range 50 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("pgtesting: files are left behind: %w", err)
}

// serverEnvironment is this process's environment without what differs between machines.
func serverEnvironment() []string {
	own := []string{"PG", "LC_", "LANG=", "LANGUAGE=", "TZ="}
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return slices.ContainsFunc(own, func(prefix string) bool { return strings.HasPrefix(variable, prefix) })
	})
	return append(env, "LC_ALL=C", "TZ=UTC")
}
