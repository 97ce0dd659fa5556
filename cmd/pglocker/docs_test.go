package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

// TestDocs: docs/cli.md says what the commands say.
func TestDocs(t *testing.T) {
	t.Parallel()

	path := filepath.Join("..", "..", "docs", "cli.md")
	want := markdown(newRoot(&app{}))

	if *update {
		must(t, os.WriteFile(path, []byte(want), 0o644))
	}

	got, err := os.ReadFile(path)
	must(t, err)

	if string(got) != want {
		t.Error("docs/cli.md is stale: run `make cli-docs`")
	}
}

// TestHelp: each command says what it is for, in a group, and its help is complete.
func TestHelp(t *testing.T) {
	t.Parallel()

	for _, cmd := range newRoot(&app{}).Commands() {
		if cmd.Hidden || cmd.Name() == "completion" || cmd.Name() == "help" {
			continue
		}

		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || cmd.Args == nil {
			t.Errorf("%s: short %q, arguments checked: %t", cmd.Name(), cmd.Short, cmd.Args != nil)
		}

		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if len(line) > 100 {
				t.Errorf("%s: a long line: %s", cmd.Name(), line)
			}
		}
	}
}

func TestMan(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	dir := filepath.Join(t.TempDir(), "man1")
	b.ok("man", dir)

	for _, cmd := range newRoot(&app{}).Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			continue
		}

		text, err := os.ReadFile(filepath.Join(dir, "pglocker-"+cmd.Name()+".1"))
		must(t, err)

		if !strings.Contains(string(text), ".SH NAME") || !strings.Contains(string(text), strings.ReplaceAll(cmd.Short, "-", `\-`)) {
			t.Errorf("%s:\n%s", cmd.Name(), text)
		}
	}
}
