package pgtesting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const downloadVersion = embeddedpostgres.V18

// downloadBinaries returns the binaries in the cache, which it fills if it is empty. Each
// process unpacks into a directory of its own, and the first to be ready moves it in place.
func downloadBinaries(ctx context.Context, o *serverOptions, account *account) (binaries, error) {
	cache := o.cacheDir
	if cache == "" {
		var err error
		if cache, err = defaultCacheDir(); err != nil {
			return binaries{}, err
		}
	}
	place := filepath.Join(cache, "postgresql-"+string(downloadVersion))
	if found, err := inspectBinaries(ctx, filepath.Join(place, "bin"), account); err == nil {
		return found, nil
	}

	if err := os.MkdirAll(cache, 0o755); err != nil {
		return binaries{}, err
	}
	// The umask may have closed the cache to the account.
	if err := os.Chmod(cache, 0o755); err != nil {
		return binaries{}, err
	}
	staging := filepath.Join(cache, randomName(directoryPrefix))
	guard, err := startWatchdog(staging)
	if err != nil {
		return binaries{}, err
	}
	err = fetchBinaries(ctx, o, staging)
	if err == nil {
		err = os.Rename(filepath.Join(staging, "unpacked"), place)
		if errors.Is(err, fs.ErrExist) {
			err = nil // another process was faster
		}
	}
	if err := errors.Join(err, guard.alarm()); err != nil {
		return binaries{}, err
	}
	return inspectBinaries(ctx, filepath.Join(place, "bin"), account)
}

// defaultCacheDir is the user's cache directory. For root it is one that the account of the
// server can enter.
func defaultCacheDir() (string, error) {
	const name = "pgtesting"
	if os.Geteuid() == 0 {
		return filepath.Join("/var/cache", name), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place to keep it: %w", err)
	}
	return filepath.Join(dir, name), nil
}

// fetchBinaries downloads PostgreSQL and unpacks it into staging/unpacked, for every user.
func fetchBinaries(ctx context.Context, o *serverOptions, staging string) error {
	if err := os.Mkdir(staging, 0o755); err != nil {
		return err
	}
	config := embeddedpostgres.DefaultConfig()
	repository := o.repository
	if repository == "" {
		repository = repositoryOf(config)
	}
	fmt.Fprintf(o.progress, "PostgreSQL is not installed here: downloading version %s\n", downloadVersion)
	relay, err := startRelay(ctx, repository, o.progress)
	if err != nil {
		return err
	}
	unpacked := filepath.Join(staging, "unpacked")
	err = unpackOnly(config.Version(downloadVersion).BinaryRepositoryURL(relay.url()).
		CachePath(filepath.Join(staging, "archive")).
		RuntimePath(filepath.Join(staging, "run")).
		BinariesPath(unpacked))
	if relayErr := relay.close(); err != nil {
		return errors.Join(err, relayErr)
	}
	fmt.Fprintf(o.progress, "PostgreSQL %s is unpacked\n", downloadVersion)
	return openToAll(unpacked)
}

// repositoryOf returns the library's default repository, for which it has no method.
func repositoryOf(config embeddedpostgres.Config) string {
	field := reflect.ValueOf(config).FieldByName("binaryRepositoryURL")
	if field.Kind() != reflect.String {
		return ""
	}
	return field.String()
}

// unpackOnly makes the library download and unpack, but not run initdb, which fails for
// root. The library has no such step. Its Start begins with it, and then empties the data
// directory. os.RemoveAll refuses a directory that ends in ".", so an error that names the
// data directory says that everything before succeeded.
func unpackOnly(config embeddedpostgres.Config) (err error) {
	data := filepath.Join(os.TempDir(), randomName("nowhere-")) + string(filepath.Separator) + "."
	defer func() {
		// The library panics if it can't remove its temporary files.
		if r := recover(); r != nil {
			err = fmt.Errorf("unpacking: %v", r)
		}
	}()
	before := libraryLogs()
	defer func() { removeOwnLogs(before) }()

	server := embeddedpostgres.NewDatabase(config.Port(0).DataPath(data).Logger(io.Discard))
	err = server.Start()
	switch {
	case err == nil:
		return errors.Join(errors.New("the library started a server"), server.Stop())
	case strings.Contains(err.Error(), data):
		return nil
	}
	return err
}

// libraryLogs returns the log files that the library leaves in the temporary folder.
func libraryLogs() map[string]bool {
	files, _ := filepath.Glob(filepath.Join(os.TempDir(), "embedded_postgres_log*"))
	logs := make(map[string]bool, len(files))
	for _, file := range files {
		logs[file] = true
	}
	return logs
}

// removeOwnLogs removes those that are new and that this process has open: others may belong
// to another process.
func removeOwnLogs(before map[string]bool) {
	for file := range libraryLogs() {
		if before[file] {
			continue
		}
		info, err := os.Lstat(file)
		if err != nil {
			continue
		}
		if open, err := isOpenHere(info); err == nil && open {
			_ = os.Remove(file)
		}
	}
}

// openToAll lets every user read all files, and run what the owner can run.
func openToAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if mode&0o100 != 0 || entry.IsDir() {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}
