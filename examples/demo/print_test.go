//go:build unix

package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestABrokenPromiseFails: run returns what summary does, and main exits with 1.
func TestABrokenPromiseFails(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer

	p := &printer{out: &out, begun: time.Now()}

	err := p.summary([]observation{{true, "one thing"}, {false, "another"}})
	if !errors.Is(err, errNotHeld) || !strings.Contains(out.String(), "  NO  another\n") ||
		!strings.Contains(out.String(), "\nFAILED  1 of 2 held, in ") {
		t.Errorf("error %v of:\n%s", err, &out)
	}

	if err := p.summary([]observation{{true, "one thing"}}); err != nil {
		t.Error(err)
	}
}

func TestColours(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		environment map[string]string
		want        bool
	}{
		{map[string]string{"TERM": "xterm"}, true},
		{map[string]string{"TERM": "dumb"}, false},
		{map[string]string{}, false},
		{map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false},
		{map[string]string{"TERM": "xterm", "NO_COLOR": ""}, true}, // as no-color.org has it
	} {
		if got := wantsColours(func(name string) string { return test.environment[name] }); got != test.want {
			t.Errorf("%v: %t", test.environment, got)
		}
	}
}

func TestLinesStayWithinTheColumns(t *testing.T) {
	t.Parallel()

	for _, colours := range []bool{true, false} {
		var out bytes.Buffer

		p := &printer{out: &out, begun: time.Now(), colours: colours}
		p.say("A", "LOST", "%s", strings.Repeat("some words & ", 30))
		p.remark("%s", strings.Repeat("ü ", 100))

		if strings.Contains(out.String(), "\x1b") != colours {
			t.Errorf("with colours %t:\n%q", colours, &out)
		}

		for line := range strings.Lines(escape.ReplaceAllString(out.String(), "")) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > columns {
				t.Errorf("%d columns: %s", n, line)
			}
		}

		drawn := picture(p.lines)
		if strings.Count(drawn, "<tspan") != strings.Count(drawn, "</tspan>") || strings.Contains(drawn, "\x1b") ||
			strings.Contains(drawn, "& ") {
			t.Errorf("the picture is:\n%s", drawn)
		}
	}
}
