package patroni

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// KeeperRole is the first argument with which this program starts itself again to outlive itself.
// The servers are Patroni's children, and end neither with Patroni nor with this program.
const KeeperRole = "keeper"

// folderPrefix begins the name of every folder that a keeper removes.
const folderPrefix = "pglocker-verify-patroni-"

// startKeeper tells the keeper the folder by its input. As an argument it would make the keeper one
// of the processes that it looks for.
func (c *Cluster) startKeeper() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("patroni: %w", err)
	}

	c.keeper = exec.Command(self, KeeperRole, "-")
	c.keeper.Stderr = os.Stderr
	c.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}

	input, err := c.keeper.StdinPipe()
	if err != nil {
		return fmt.Errorf("patroni: %w", err)
	}

	c.alive = input

	if err := c.keeper.Start(); err != nil {
		c.keeper = nil

		return fmt.Errorf("patroni: %w", err)
	}

	if _, err := fmt.Fprintln(input, c.folder); err != nil {
		return fmt.Errorf("patroni: %w", err)
	}

	return nil
}

// Keep is the process of the keeper. When its input ends, it ends the processes of the folder that
// its first line names, and removes the folder.
func Keep(in io.Reader) error {
	reader := bufio.NewReader(in)

	folder, err := reader.ReadString('\n')
	if err != nil {
		return nil // nothing has begun
	}

	_, _ = io.Copy(io.Discard, reader) // whichever way it ends

	folder = strings.TrimSpace(folder)
	if scope := filepath.Base(folder); !strings.HasPrefix(scope, folderPrefix) {
		return fmt.Errorf("patroni: %q is no folder to remove", folder)
	}

	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		owned, err := processes(func(commandLine string) bool { return belongs(commandLine, folder) })
		if err != nil {
			return err
		}

		for _, pid := range owned {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}

		if len(owned) == 0 && os.RemoveAll(folder) == nil {
			return nil
		}
	}

	return fmt.Errorf("patroni: not everything in %s ends", folder)
}

// belongs reports, by its command line, whether a process is of a cluster. PostgreSQL's command
// lines show the cluster_name, which is the folder's.
func belongs(commandLine, folder string) bool {
	return strings.Contains(commandLine, folder+"/") ||
		strings.HasPrefix(commandLine, "postgres: "+filepath.Base(folder)+": ")
}

// processes lists the processes with such a command line, in which a space separates the arguments.
func processes(such func(commandLine string) bool) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}

	var found []int

	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || len(text) == 0 || !such(string(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))) {
			continue // gone, or another's
		}

		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			found = append(found, pid)
		}
	}

	return found, nil
}
