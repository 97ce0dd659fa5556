package pgtesting

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// watchdogScript reads its standard input, a pipe that only this process writes to. If the
// input ends without the word "done", this process has ended. The script then ends every
// process of the server, frozen ones too, and removes the directory.
//
// It finds processes by their command lines, as Server.owns does: a process id may belong to
// another process by then. The directory comes by the pipe, or the watchdog's own command
// line would match.
//
// A forked child keeps the pipe open until it runs another program. So no server can appear
// after the end of input.
const watchdogScript = `
trap '' HUP INT QUIT TERM
IFS= read -r dir || exit 0
read -r word
[ "$word" = done ] && exit 0
case $dir in
/*/` + directoryPrefix + `*) ;;
*) exit 1 ;;
esac

# pids PATTERN...: the processes whose command lines contain one of them.
pids() {
	if [ -r /proc/self/cmdline ]; then
		printf '%s\n' "$@" |
			grep -lsF -f - /proc/[0-9]*/cmdline |
			while IFS=/ read -r _ _ pid _; do echo "$pid"; done
	else
		ps -A -ww -o pid= -o args= |
			while read -r pid args; do
				for pattern; do
					case $args in
					*"$pattern"*) echo "$pid" ;;
					esac
				done
			done
	fi
}
main() { pids "$dir/data"; }
all() { pids "$dir/data" "postgres: ${dir##*/}: "; }

# gone TENTHS: waits so long for the processes to end.
gone() {
	tenths=$1
	while [ -n "$(all)" ]; do
		[ "$tenths" -gt 0 ] || return 1
		tenths=$((tenths - 1))
		sleep 0.1
	done
}

# SIGQUIT lets the server, or initdb, remove its shared memory itself.
for pid in $(all); do kill -s CONT "$pid"; done
main=$(main)
for pid in $main; do kill -s QUIT "$pid"; done
[ -n "$main" ] && gone 80
tries=0
while [ $tries -lt 100 ] && ! gone 1; do
	for pid in $(all); do kill -s KILL "$pid"; done
	tries=$((tries + 1))
done

set -- $(sed -n 7p "$dir/data/postmaster.pid" 2>/dev/null)
[ -n "$2" ] && ipcrm -m "$2"
tries=0
while [ $tries -lt 50 ] && ! rm -rf "$dir"; do
	tries=$((tries + 1))
	sleep 0.1
done
`

// watchdog is a process that ends a server and removes its directory when this process has
// ended.
type watchdog struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// startWatchdog starts a watchdog for a directory, which need not exist yet.
func startWatchdog(dir string) (*watchdog, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pgtesting: the watchdog's pipe: %w", err)
	}
	cmd := exec.Command("/bin/sh", "-c", watchdogScript)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C"}
	cmd.Stdin = r
	cmd.SysProcAttr = new(account).attributes()
	err = cmd.Start()
	_ = r.Close()
	if err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("pgtesting: the watchdog: %w", err)
	}
	guard := &watchdog{cmd: cmd, pipe: w}
	if _, err := io.Copy(w, strings.NewReader(dir+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("pgtesting: the watchdog: %w", err), guard.alarm())
	}
	return guard, nil
}

// dismiss ends the watchdog without any action.
func (w *watchdog) dismiss() error {
	_, err := w.pipe.WriteString("done\n")
	return errors.Join(err, w.alarm())
}

// alarm has the watchdog act as if this process had ended, and waits until it has.
func (w *watchdog) alarm() error {
	err := errors.Join(w.pipe.Close(), w.cmd.Wait())
	if err != nil {
		return fmt.Errorf("pgtesting: the watchdog: %w", err)
	}
	return nil
}
