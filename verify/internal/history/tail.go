package history

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Tail reads what the processes of a run write from some moment on, while they write.
type Tail struct {
	folder string
	// read is how much of each file was read.
	read map[string]int64
}

// NewTail begins at the end of every file of the folder. A line that is being written is to come.
func NewTail(folder string) (*Tail, error) {
	t := &Tail{folder: folder, read: make(map[string]int64)}

	paths, err := t.paths()
	if err != nil {
		return nil, err
	}

	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}

		t.read[path] = int64(bytes.LastIndexByte(text, '\n') + 1)
	}

	return t, nil
}

func (t *Tail) paths() ([]string, error) { return filepath.Glob(filepath.Join(t.folder, "*.jsonl")) }

// Read returns what has come since, in the order in which each process wrote it.
func (t *Tail) Read() ([]Event, error) {
	paths, err := t.paths()
	if err != nil {
		return nil, err
	}

	var events []Event

	for _, path := range paths {
		more, err := t.readFile(path)
		if err != nil {
			return nil, fmt.Errorf("history: %s: %w", path, err)
		}

		events = append(events, more...)
	}

	return events, nil
}

func (t *Tail) readFile(path string) ([]Event, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	if _, err := file.Seek(t.read[path], io.SeekStart); err != nil {
		return nil, err
	}

	text, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}

	events, read, err := parse(text)
	t.read[path] += int64(read)

	return events, err
}
