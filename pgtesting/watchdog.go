package pgtesting

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// watchdogScript waits on its standard input, the reading end of a pipe whose
// only writing end is ours, for the word "done". If the input ends without it we
// have died, and it ends every process of the server, frozen ones too, and
// removes the directory.
//
// It finds processes by their command lines, as Server.owns does, and never by a
// process id that was noted earlier and may mean somebody else by now. The
// directory comes by the pipe too: as an argument it would make the watchdog one
// of the processes that it looks for.
//
// A forked child keeps our end of the pipe open until it has become another
// program. So the end of input also means that no server can appear afterwards.
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

// watchdog is a process that outlives ours for as long as it takes to end a
// server and to remove its directory.
type watchdog struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// startWatchdog starts one for a directory, which need not exist yet.
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

// dismiss ends the watchdog, for which nothing is left to do.
func (w *watchdog) dismiss() error {
	_, err := w.pipe.WriteString("done\n")
	return errors.Join(err, w.alarm())
}

// alarm lets the watchdog do its work, as if this process had died, and waits
// for it to end.
func (w *watchdog) alarm() error {
	err := errors.Join(w.pipe.Close(), w.cmd.Wait())
	if err != nil {
		return fmt.Errorf("pgtesting: the watchdog: %w", err)
	}
	return nil
}
