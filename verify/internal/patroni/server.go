package patroni

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// mainPID is the main process of the server in a data directory.
func mainPID(dataDir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("patroni: %w", err)
	}

	line, _, _ := bytes.Cut(text, []byte("\n"))

	return strconv.Atoi(string(bytes.TrimSpace(line)))
}

// processGroup lists a process and its children, without those that have ended.
func processGroup(main int) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}

	var group []int

	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // gone
		}

		// pid (name) state ppid ...; the name may contain anything.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 || bytes.ContainsAny(fields[0], "ZX") {
			continue
		}

		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}

		if parent, err := strconv.Atoi(string(fields[1])); err == nil && (pid == main || parent == main) {
			group = append(group, pid)
		}
	}

	return group, nil
}
