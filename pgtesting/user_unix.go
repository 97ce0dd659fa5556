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

// account is who runs the server. A nil credential means whoever runs us.
type account struct {
	name       string
	credential *syscall.Credential
}

// serverAccount returns this process's own account, or, since PostgreSQL refuses
// to run as root, the first of the users that exists for root.
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

// attributes make a process run as the account, in a session of its own.
func (a *account) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: a.credential, Setsid: true}
}

// own hands a file to the account.
func (a *account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// enter returns an error unless the account can change into dir and this process
// can create directories in it. Asking the system by doing it takes in what mode
// bits don't show.
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
