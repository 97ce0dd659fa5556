// Package report writes docs/performance.md from the measurements of one run.
package report

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/format"
	"github.com/ismurov/pglocker/bench/internal/reach"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/workload"
)

//go:embed performance.md.tmpl
var text string

type Input struct {
	Plan     workload.Plan
	Log      *result.Log
	Machine  Machine
	Versions Versions
	Settings []string
	// Chosen are the options that served a contender best.
	Chosen  map[string]contender.Options
	Reaches []reach.Reach
	// Failed are the errors of workloads that failed.
	Failed []error
	Took   time.Duration
	Day    time.Time
}

// Versions are those of the servers, empty for one that isn't installed.
type Versions struct {
	Postgres, Redis, Etcd string
	Pgbench               bool
}

// Write writes the report to a file, and its charts to the folder img beside it.
func Write(path string, in Input) error {
	images, err := charts(filepath.Join(filepath.Dir(path), "img"), in.Log, in.Plan)
	if err != nil {
		return err
	}

	report, err := render(in, images)
	if err != nil {
		return err
	}

	return os.WriteFile(path, []byte(report), 0o644)
}

func render(in Input, images map[string]string) (string, error) {
	page, err := template.New("performance.md").Funcs(template.FuncMap{
		"thousands": format.Thousands,
		"module":    module,
		"join":      strings.Join,
		"chart": func(name, alt string) string {
			if images[name] == "" {
				return ""
			}

			return fmt.Sprintf("![%s](img/%s)\n", alt, images[name])
		},
		"table": func(name string) string { return tableOf(in.Log, name) },
		"reach": func() string { return reachTable(in.Reaches) },
	}).Parse(text)
	if err != nil {
		return "", err
	}

	var b strings.Builder

	err = page.Execute(&b, struct {
		Input
		Model *model
		Go    string
		Pools []string
		Pause []string
	}{
		Input: in,
		Model: newModel(in.Log, in.Machine.Cores, in.Plan),
		Go:    strings.TrimPrefix(runtime.Version(), "go"),
		Pools: chosen(in.Chosen, func(o contender.Options) (string, bool) { return fmt.Sprint(o.Pool), o.Pool > 0 }),
		Pause: chosen(in.Chosen, func(o contender.Options) (string, bool) { return o.Poll.String(), o.Poll > 0 }),
	})

	return b.String(), err
}

func tableOf(log *result.Log, name string) string {
	switch name {
	case "W1":
		return table(log, "W1", "", pairColumns)
	case "W1 costs":
		return table(log, "W1", "", costColumns)
	case "W2":
		return table(log, "W2", "goroutines", pairColumns)
	case "W2 costs":
		return table(log, "W2", "goroutines", costColumns)
	case "W3":
		return table(log, "W3", "waiters", handOverColumns)
	case "W4":
		return table(log, "W4", "locks", heldColumns)
	case "W5":
		return table(log, "W5", "locks, goroutines, ids", tableColumns)
	case "W6":
		return table(log, "W6", "pairs", churnColumns)
	case "W7":
		return table(log, "W7", "", failedColumns)
	case "W8":
		return table(log, "W8", "table, analyzed, goroutines", freshColumns)
	case "W9 locks":
		return tableFor(log, "W9", "locks", severalColumns, workload.NameAtOnce, workload.NameOneByOne)
	case "W9 permits":
		return tableFor(log, "W9", "permits, waiters", permitColumns, contender.NamePglocker, contender.NameRedisSlots)
	case "W9 readers":
		return tableFor(log, "W9", "readers, writers", readColumns, contender.NamePglocker)
	case "W9 history":
		return tableFor(log, "W9", "", severalColumns, workload.NameWithoutHistory, workload.NameWithHistory)
	case "W9 rows":
		return tableFor(log, "W9", "rows", careColumns, workload.NameIdle, workload.NamePrune, workload.NameLocks)
	case "W10":
		return table(log, "W10", "clients", pairColumns)
	case "W11":
		return table(log, "W11", "", coldColumns)
	case "W12":
		return table(log, "W12", "processes, held for, after", queueColumns)
	}

	panic("report: the template asks for a table " + name)
}

func chosen(all map[string]contender.Options, of func(contender.Options) (string, bool)) []string {
	var lines []string

	for name, o := range all {
		if value, ok := of(o); ok {
			lines = append(lines, name+" "+value)
		}
	}

	slices.Sort(lines)

	return lines
}
