package main

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ismurov/pglocker/migrations"
)

// sqlFile is a file for a migration tool.
type sqlFile struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// step is one migration.
type step struct{ file, name, up, down string }

// steps are the library's own files, with the way down.
func steps(history bool) ([]step, error) {
	all, err := stepsOf(migrations.FS, "*.sql")
	if err != nil || !history {
		return all, err
	}

	more, err := stepsOf(migrations.History, "history/*.sql")

	return append(all, more...), err
}

func stepsOf(from embed.FS, pattern string) (all []step, err error) {
	names, err := fs.Glob(from, pattern)
	if err != nil {
		return nil, err
	}

	for _, name := range names {
		text, err := from.ReadFile(name)
		if err != nil {
			return nil, err
		}

		file := path.Base(name)
		_, bare, _ := strings.Cut(strings.TrimSuffix(file, ".sql"), "_")
		all = append(all, step{file: file, name: "pglocker_" + bare, up: string(text), down: downOf(string(text))})
	}

	return all, nil
}

// downOf drops what the text makes. The schema stays: it may hold tables of others.
func downOf(up string) string {
	var drops []string

	madeTable := regexp.MustCompile(`(?m)^CREATE TABLE IF NOT EXISTS (\S+) \(`)
	madeFunction := regexp.MustCompile(`(?m)^CREATE OR REPLACE FUNCTION ([^\s(]+)\(`)

	// The functions of the history go with the triggers that call them.
	for _, m := range madeFunction.FindAllStringSubmatch(up, -1) {
		drops = append(drops, "DROP FUNCTION IF EXISTS "+m[1]+" CASCADE;")
	}

	for _, m := range madeTable.FindAllStringSubmatch(up, -1) {
		drops = append(drops, "DROP TABLE IF EXISTS "+m[1]+";")
	}

	if strings.Contains(up, "CREATE SCHEMA") {
		drops = append([]string{"-- Without the table the tokens of all locks start again, below those that were issued."}, drops...)
	}

	return strings.Join(drops, "\n") + "\n"
}

// files are the migrations in the form of the tool.
func (m *migrating) files() ([]sqlFile, error) {
	all, err := steps(m.history)
	if err != nil {
		return nil, err
	}

	if m.tool == "plain" {
		var files []sqlFile
		for _, s := range all {
			files = append(files, sqlFile{s.file, s.up})
		}

		return files, nil
	}

	form, ok := forms[m.tool]
	if !ok {
		return nil, usagef("unknown --tool %q: it is plain, goose, golang-migrate, tern or atlas", m.tool)
	}

	first, width, err := m.firstNumber()
	if err != nil {
		return nil, err
	}

	var files []sqlFile

	for i, s := range all {
		files = append(files, form(fmt.Sprintf("%0*d_%s", width, first+int64(i), s.name), s)...)
	}

	return files, nil
}

// forms are the conventions of the migration tools.
var forms = map[string]func(name string, s step) []sqlFile{
	"goose": func(name string, s step) []sqlFile {
		block := func(text string) string { return "-- +goose StatementBegin\n" + text + "-- +goose StatementEnd\n" }

		return []sqlFile{{name + ".sql", "-- +goose Up\n" + block(s.up) + "\n-- +goose Down\n" + block(s.down)}}
	},
	"golang-migrate": func(name string, s step) []sqlFile {
		return []sqlFile{{name + ".up.sql", s.up}, {name + ".down.sql", s.down}}
	},
	"tern": func(name string, s step) []sqlFile {
		return []sqlFile{{name + ".sql", s.up + "\n---- create above / drop below ----\n\n" + s.down}}
	},
	"atlas": func(name string, s step) []sqlFile {
		return []sqlFile{{name + ".sql", s.up}}
	},
}

// firstNumber is the number of the first file, and how many digits it has.
func (m *migrating) firstNumber() (first int64, width int, err error) {
	text := m.number

	switch {
	case text == "" && m.tool == "tern":
		text, err = nextOfTern(m.dir)
	case text == "":
		text = time.Now().UTC().Format("20060102150405")
	}

	if err != nil {
		return 0, 0, err
	}

	first, err = strconv.ParseInt(text, 10, 64)
	if err != nil || first < 0 || len(text) > 18 {
		return 0, 0, usagef("invalid --number %q: it is digits", m.number)
	}

	return first, len(text), nil
}

// nextOfTern is the number after the last in the folder: tern wants no gaps.
func nextOfTern(dir string) (string, error) {
	last := 0

	if dir != "" {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return "", err
		}

		for _, e := range entries {
			number, _, _ := strings.Cut(e.Name(), "_")
			if n, err := strconv.Atoi(number); err == nil && path.Ext(e.Name()) == ".sql" {
				last = max(last, n)
			}
		}
	}

	return fmt.Sprintf("%03d", last+1), nil
}
