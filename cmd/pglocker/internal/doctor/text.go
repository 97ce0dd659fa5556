package doctor

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// Paint gives a text a colour, or returns it as it is.
type Paint func(s Status, text string) string

// width is that of a terminal, for texts. Statements aren't broken.
const width = 80

// marks are what a line begins with.
var marks = map[Status]string{OK: "ok", Warned: "warn", Failed: "ERROR", Skipped: "skip"}

// WriteText writes the report for people: a line for each check, and then the findings, errors first.
func (r *Report) WriteText(w io.Writer, paint Paint) error {
	var b strings.Builder

	fmt.Fprintf(&b, "%s\n\n", clean(fmt.Sprintf("%s on %s, as %s, %s", r.Database, r.Server, r.Role, r.Table)))

	for _, c := range r.Checks {
		line := wrap(clean(c.Seen), width, "      "+strings.Repeat(" ", nameWidth+1))
		fmt.Fprintf(&b, "%s %-*s %s\n", paint(c.Status, fmt.Sprintf("%-5s", marks[c.Status])), nameWidth, c.Name, strings.TrimSpace(line))

		for _, note := range c.Notes {
			fmt.Fprintln(&b, wrap(clean(note), width, "        "))
		}
	}

	errors, warnings := r.Count(Error), r.Count(Warning)
	fmt.Fprintf(&b, "\n%s, %s.\n", many(int64(errors), "error"), many(int64(warnings), "warning"))

	for _, severity := range []Severity{Error, Warning} {
		for _, f := range r.Findings {
			if f.Severity == severity {
				f.write(&b, paint)
			}
		}
	}

	_, err := io.WriteString(w, b.String())

	return err
}

const nameWidth = 13

func (f Finding) write(b *strings.Builder, paint Paint) {
	status := Warned
	if f.Severity == Error {
		status = Failed
	}

	fmt.Fprintf(b, "\n%s %s\n", paint(status, fmt.Sprintf("%-5s", marks[status])), f.Name)
	fmt.Fprintln(b, wrap(clean(f.Seen), width, "      "))
	fmt.Fprintln(b, wrap(clean(f.Means), width, "      "))

	for line := range strings.Lines(f.Mend) {
		fmt.Fprintf(b, "    > %s\n", clean(strings.TrimSuffix(line, "\n")))
	}
}

// wrap breaks a text into lines of a width, each of which begins with the indent.
func wrap(text string, width int, indent string) string {
	var (
		b    strings.Builder
		used int
	)

	b.WriteString(indent)

	for n, word := range strings.Fields(text) {
		length := len([]rune(word))

		switch {
		case n == 0:
		case len(indent)+used+1+length > width:
			b.WriteString("\n" + indent)

			used = 0
		default:
			b.WriteByte(' ')

			used++
		}

		b.WriteString(word)

		used += length
	}

	return b.String()
}

// clean is a text that changes nothing on a terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}

		return '?'
	}, text)
}

// shell quotes an argument for a shell.
func shell(argument string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-+./:@,=", r)
	}
	odd := func(r rune) bool { return !unicode.IsPrint(r) }

	switch {
	case argument != "" && argument[0] != '-' && strings.IndexFunc(argument, func(r rune) bool { return !plain(r) }) < 0:
		return argument
	case strings.IndexFunc(argument, odd) < 0:
		return "'" + strings.ReplaceAll(argument, "'", `'\''`) + "'"
	}

	quoted := strings.NewReplacer(`\"`, `"`, "'", `\'`).Replace(strconv.Quote(argument))

	return "$'" + quoted[1:len(quoted)-1] + "'"
}
