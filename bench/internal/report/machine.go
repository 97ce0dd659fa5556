package report

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/ismurov/pglocker/bench/internal/workload"
)

type Machine struct {
	CPU    string
	Cores  int
	Memory string
	System string
	Disk   string
}

const unknown = "unknown"

// ThisMachine describes this machine. What it can't find out is "unknown".
func ThisMachine() Machine {
	m := Machine{
		CPU:    valueIn("/proc/cpuinfo", "model name", ":"),
		Cores:  runtime.NumCPU(),
		Memory: unknown,
		System: runtime.GOOS,
		Disk:   disk(),
	}

	if kb, err := strconv.Atoi(strings.TrimSuffix(valueIn("/proc/meminfo", "MemTotal", ":"), " kB")); err == nil {
		m.Memory = fmt.Sprintf("%.0f GiB", float64(kb)/(1<<20))
	}

	if name := strings.Trim(valueIn("/etc/os-release", "PRETTY_NAME", "="), `"`); name != unknown {
		m.System = name
	}

	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		// The name of the build says nothing.
		release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
		m.System += ", kernel " + release
	}

	return m
}

// valueIn finds the first line of a file that begins with a name.
func valueIn(path, name, separator string) string {
	file, err := os.Open(path)
	if err != nil {
		return unknown
	}
	defer file.Close()

	lines := bufio.NewScanner(file)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), separator)
		if ok && strings.TrimSpace(before) == name {
			return strings.TrimSpace(after)
		}
	}

	return unknown
}

// disk describes the device with the temporary files, where all servers write, as far as df
// and the kernel tell.
func disk() string {
	out, err := exec.Command("df", "-PT", os.TempDir()).Output()
	if err != nil {
		return unknown
	}

	lines := strings.Split(string(out), "\n")
	if len(lines) < 2 {
		return unknown
	}

	fields := strings.Fields(lines[1])
	if len(fields) < 2 {
		return unknown
	}

	device := filepath.Base(fields[0])
	text := fields[1] + " on " + device

	// A partition has the queue of its disk.
	for _, path := range []string{"/sys/class/block/" + device, "/sys/class/block/" + device + "/.."} {
		switch rotational, _ := os.ReadFile(path + "/queue/rotational"); strings.TrimSpace(string(rotational)) {
		case "0":
			return text + ", not rotational"
		case "1":
			if strings.HasPrefix(device, "vd") { // a virtual machine's, where the flag means nothing
				return text + ", virtual"
			}

			return text + ", rotational"
		}
	}

	return text
}

// pgSettings are the settings that the numbers depend on.
var pgSettings = []string{
	"fsync", "synchronous_commit", "full_page_writes", "wal_level", "wal_sync_method", "shared_buffers",
	"max_wal_size", "max_connections", "autovacuum", "autovacuum_naptime",
}

func Settings(ctx context.Context, b *workload.Bench) ([]string, error) {
	var settings []string

	for _, name := range pgSettings {
		value, err := b.Postgres.Setting(ctx, name)
		if err != nil {
			return nil, err
		}

		settings = append(settings, name+" = "+value)
	}

	return settings, nil
}

func module(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}

	for _, dep := range info.Deps {
		if dep.Path == path {
			return dep.Version
		}
	}

	return unknown
}
