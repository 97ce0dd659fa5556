//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// columns is the width that all output keeps to.
const columns = 80

// printer writes for a person: what happened when, counted from the start.
type printer struct {
	out    io.Writer
	begun  time.Time
	scenes int
	// colours is false where the output is no terminal, or NO_COLOR is set.
	colours bool
	// lines are all that was printed, colours included, for the picture.
	lines []string
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// verbColours: green is a grant, yellow what the demo does to a worker, red what the worker
// learns of it.
var verbColours = map[string]string{
	"GRANTED": green, "KILLED": yellow, "PAUSED": yellow, "CONTINUED": yellow, "FENCED": red, "LOST": red,
}

// workerColours tell the workers apart.
var workerColours = map[string]string{"A": "36", "B": "35", "C": "34"}

var (
	errNotHeld = errors.New("not everything held")
	escape     = regexp.MustCompile("\x1b\\[[0-9]*m")
)

func newPrinter(out *os.File) *printer {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0

	return &printer{out: out, begun: time.Now(), colours: terminal && wantsColours(os.Getenv)}
}

// wantsColours goes by no-color.org and by what the terminal says that it is.
func wantsColours(getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && getenv("TERM") != "" && getenv("TERM") != "dumb"
}

// Write is for what others print: whole lines.
func (p *printer) Write(text []byte) (int, error) {
	for line := range strings.Lines(string(text)) {
		p.print("", strings.TrimRight(line, "\n"))
	}

	return len(text), nil
}

func (p *printer) scene(format string, args ...any) {
	p.scenes++
	p.print("", "")
	p.print(paint(bold, fmt.Sprintf("%d. ", p.scenes)), fmt.Sprintf(format, args...), bold)
	p.print("", "")
}

// say prints what happened to a worker just now.
func (p *printer) say(worker, verb, format string, args ...any) {
	p.sayAt(time.Now(), worker, verb, format, args...)
}

func (p *printer) sayAt(at time.Time, worker, verb, format string, args ...any) {
	p.print(
		paint(dim, fmt.Sprintf("%6.2f s", at.Sub(p.begun).Seconds()))+"  "+
			paint(workerColours[worker], worker)+"  "+paint(verbColours[verb], fmt.Sprintf("%-9s", verb))+" ",
		fmt.Sprintf(format, args...))
}

// remark prints what goes for no worker in particular.
func (p *printer) remark(format string, args ...any) {
	p.print(strings.Repeat(" ", 13), fmt.Sprintf(format, args...), dim)
}

// summary returns an error unless all observations held.
func (p *printer) summary(observations []observation) error {
	p.print("", "")
	p.print("", "What had to hold", bold)
	p.print("", "")

	held := 0

	for _, o := range observations {
		verdict := paint(red, "NO")
		if o.ok {
			verdict = paint(green, "ok")
			held++
		}

		p.print("  "+verdict+"  ", o.what)
	}

	p.print("", "")

	var err error

	verdict, colour := "PASSED", green
	if held < len(observations) {
		verdict, colour, err = "FAILED", red, errNotHeld
	}

	p.print(paint(bold, paint(colour, verdict))+"  ", fmt.Sprintf("%d of %d held, in %.1f s. The workers and the schema are gone.",
		held, len(observations), time.Since(p.begun).Seconds()))

	return err
}

// print prints a text, in some colours, broken into lines that stand under each other to the
// right of the label.
func (p *printer) print(label, text string, colours ...string) {
	indent := utf8.RuneCountInString(escape.ReplaceAllString(label, ""))

	for _, line := range wrap(text, columns-indent) {
		for _, colour := range colours {
			line = paint(colour, line)
		}

		line = strings.TrimRight(label+line, " ")
		label = strings.Repeat(" ", indent)
		p.lines = append(p.lines, line)

		if !p.colours {
			line = escape.ReplaceAllString(line, "")
		}

		fmt.Fprintln(p.out, line)
	}
}

// wrap breaks a text at blanks into lines of at most width runes. A longer word has a line of
// its own.
func wrap(text string, width int) []string {
	var lines []string

	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line+" "+word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}

	return append(lines, line)
}

func paint(colour, text string) string {
	if colour == "" || text == "" {
		return text
	}

	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}

	return fmt.Sprintf("%.2f s", d.Seconds())
}
