//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// printer writes for a person: what happened when, counted from the start.
type printer struct {
	out    *os.File
	begun  time.Time
	scenes int
	// colours is false where the output is no terminal or somebody asked for none.
	colours bool
}

const (
	bold  = "1"
	red   = "31"
	green = "32"
)

var errNotHeld = errors.New("not every observation held")

func newPrinter(out *os.File) *printer {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0

	return &printer{
		out: out, begun: time.Now(),
		colours: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
}

func (p *printer) scene(format string, args ...any) {
	p.scenes++
	title := fmt.Sprintf("%d. %s", p.scenes, fmt.Sprintf(format, args...))
	fmt.Fprintf(p.out, "\n%s\n\n", p.paint(bold, title))
}

// say prints what happened just now, to a worker or to nobody in particular.
func (p *printer) say(worker, format string, args ...any) {
	p.sayAt(time.Now(), worker, format, args...)
}

func (p *printer) sayAt(at time.Time, worker, format string, args ...any) {
	if worker == "" {
		worker = "-"
	}

	fmt.Fprintf(p.out, "%8.3f s  %s  %s  %s\n",
		at.Sub(p.begun).Seconds(), at.Format("15:04:05.000"), worker, fmt.Sprintf(format, args...))
}

// summary returns an error unless all observations held.
func (p *printer) summary(observations []observation) error {
	fmt.Fprintf(p.out, "\n%s\n\n", p.paint(bold, "Summary"))

	held := 0

	for _, o := range observations {
		verdict := p.paint(red, "FAILED")
		if o.ok {
			verdict = p.paint(green, "ok    ")
			held++
		}

		fmt.Fprintf(p.out, "  %s  %s\n", verdict, o.what)
	}

	fmt.Fprintf(p.out, "\n%d of %d observations held, in %.1f s. The workers and the schema are gone.\n",
		held, len(observations), time.Since(p.begun).Seconds())

	if held < len(observations) {
		return errNotHeld
	}

	return nil
}

func (p *printer) paint(colour, text string) string {
	if !p.colours {
		return text
	}

	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}

	return d.Round(time.Millisecond).String()
}
