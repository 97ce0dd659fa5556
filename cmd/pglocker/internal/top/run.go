package top

import (
	"context"
	"errors"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Options say what [Run] shows.
type Options struct {
	// Title names the table and the server.
	Title string
	// Interval is the time between two looks, where a look is fast.
	Interval time.Duration
	// Query is what the view begins with.
	Query Query
}

// Run draws the view on the terminal that is standard input and output, until the user quits or ctx ends. The
// terminal is then as it was, also after a panic.
//
// It returns nil if the user quit, and ctx's error if ctx ended.
func Run(ctx context.Context, table Table, o Options) error {
	// What is under way when the user quits is ended.
	looking, cancel := context.WithCancel(ctx)
	defer cancel()

	_, err := tea.NewProgram(newModel(looking, table, o), tea.WithContext(ctx), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil && errors.Is(err, tea.ErrProgramKilled) {
		return ctx.Err()
	}

	return err
}
