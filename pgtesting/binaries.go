package pgtesting

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

type binaries struct {
	dir     string // symbolic links resolved
	version version
}

// usualFolders are where packages and installers put PostgreSQL outside of PATH.
var usualFolders = []string{
	"/usr/lib/postgresql/*/bin",      // Debian
	"/usr/lib/postgresql*/bin",       // SUSE, Gentoo
	"/usr/libexec/postgresql*",       // Alpine
	"/usr/pgsql-*/bin",               // Red Hat, the project's own packages
	"/usr/local/pgsql*/bin",          // from source
	"/usr/local/lib/postgresql*/bin", // FreeBSD
	"/opt/postgresql*/bin",
	"/opt/postgresql/*/bin",
	"/opt/homebrew/opt/postgresql*/bin", // Homebrew
	"/usr/local/opt/postgresql*/bin",    // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/opt/local/lib/postgresql*/bin", // MacPorts
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/Library/PostgreSQL/*/bin", // EnterpriseDB
}

func installFolders() []string {
	folders := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range usualFolders {
		matches, _ := filepath.Glob(pattern)
		folders = append(folders, matches...)
	}
	return folders
}

// chooseBinaries returns the binaries that the caller named, else the newest installed, else
// downloaded ones.
func chooseBinaries(ctx context.Context, o *serverOptions, account *account) (binaries, error) {
	if o.binDir != "" {
		return inspectBinaries(ctx, o.binDir, account)
	}
	if found, ok := newestBinaries(ctx, o.folders, account); ok {
		return found, nil
	}
	if err := ctx.Err(); err != nil {
		return binaries{}, context.Cause(ctx)
	}
	found, err := downloadBinaries(ctx, o, account)
	if err != nil {
		return binaries{}, fmt.Errorf("pgtesting: PostgreSQL is not installed here, and downloading it failed: %w", err)
	}
	return found, nil
}

// newestBinaries returns the newest in the folders; of equal versions the first.
func newestBinaries(ctx context.Context, folders []string, account *account) (binaries, bool) {
	var newest binaries
	seen := make(map[string]bool)
	for _, dir := range folders {
		if !filepath.IsAbs(dir) {
			continue // as exec.LookPath does
		}
		postgres, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil || seen[postgres] {
			continue
		}
		seen[postgres] = true
		found, err := inspectBinaries(ctx, dir, account)
		if err == nil && found.version.num > newest.version.num {
			newest = found
		}
	}
	return newest, newest.dir != ""
}

// inspectBinaries returns an error unless the account can run the postgres in dir.
func inspectBinaries(ctx context.Context, dir string, account *account) (binaries, error) {
	postgres, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return binaries{}, fmt.Errorf("pgtesting: no PostgreSQL: %w", err)
	}
	if postgres, err = filepath.Abs(postgres); err != nil {
		return binaries{}, fmt.Errorf("pgtesting: no PostgreSQL: %w", err)
	}
	found := binaries{dir: filepath.Dir(postgres)}
	if _, err := os.Stat(filepath.Join(found.dir, "initdb")); err != nil {
		return binaries{}, fmt.Errorf("pgtesting: PostgreSQL without initdb: %w", err)
	}

	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, postgres, "--version")
	cmd.Dir = "/"
	cmd.Env = serverEnvironment()
	cmd.SysProcAttr = account.attributes()
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return binaries{}, fmt.Errorf("pgtesting: %s as %s: %w", postgres, account, err)
	}
	if found.version, err = parseVersion(string(out)); err != nil {
		return binaries{}, err
	}
	if found.version.num < oldestVersion {
		return binaries{}, fmt.Errorf("pgtesting: %s is of version %s, older than %d", postgres, found.version.text, oldestVersion/10000)
	}
	return found, nil
}
