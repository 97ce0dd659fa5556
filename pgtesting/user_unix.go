//go:build unix

package pgtesting

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is the user that runs the server. A nil credential is this process's own.
type account struct {
	name       string
	credential *syscall.Credential
}

// serverAccount returns this process's account or, for root, the first of the users that
// exists: PostgreSQL refuses to run as root.
func serverAccount(users []string) (*account, error) {
	if os.Geteuid() != 0 {
		return &account{name: "uid " + strconv.Itoa(os.Geteuid())}, nil
	}
	var errs []error
	for _, name := range users {
		u, err := user.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			errs = append(errs, err)
			continue
		}
		return &account{
			name:       "user " + name,
			credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
		}, nil
	}
	return nil, fmt.Errorf("pgtesting: PostgreSQL does not run as root, and no other user is known: %w", errors.Join(errs...))
}

func (a *account) String() string { return a.name }

// attributes are those of a process of the account, in a session of its own.
func (a *account) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: a.credential, Setsid: true}
}

// own makes the account the owner of a file.
func (a *account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// enter returns an error unless the account can change into dir and this process can create
// directories in it. It tries both: mode bits don't show everything.
func (a *account) enter(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", ":")
	cmd.Dir = dir
	cmd.SysProcAttr = a.attributes()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s as %s: %w", dir, a, err)
	}
	probe, err := os.MkdirTemp(dir, directoryPrefix)
	if err != nil {
		return err
	}
	return os.Remove(probe)
}
