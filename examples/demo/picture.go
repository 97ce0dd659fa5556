//go:build unix

package main

import (
	"fmt"
	"html"
	"os"
	"strings"
)

// savePicture writes what was printed as a picture of a terminal.
func (p *printer) savePicture(name string) error {
	if name == "" {
		return nil
	}

	return os.WriteFile(name, []byte(picture(append([]string{"$ make demo"}, p.lines...))), 0o644)
}

// Sizes of the picture, in pixels.
const (
	charWidth  = 8.45 // of the widest of the usual fonts, at 14 pixels
	lineHeight = 19
	padding    = 16
)

// picture draws lines of text with colours as an SVG. It names fonts that systems have, and
// the first that the reader's has is used.
func picture(lines []string) string {
	var b strings.Builder

	width, height := int(columns*charWidth)+2*padding, lineHeight*len(lines)+2*padding
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d">
<!-- Made by: go run ./examples/demo -svg docs/img/demo.svg -->
<title>The output of make demo</title>
<style>
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d4d7dd; white-space: pre }
.c1 { font-weight: bold; fill: #ffffff } .c2 { fill: #868d99 }
.c31 { fill: #ff7b72 } .c32 { fill: #56d364 } .c33 { fill: #e3b341 }
.c34 { fill: #79a8ff } .c35 { fill: #d2a8ff } .c36 { fill: #56d4dd }
</style>
<rect width="100%%" height="100%%" rx="8" fill="#1b1f27"/>
`, width, height)

	for n, line := range lines {
		if line != "" {
			fmt.Fprintf(&b, `<text x="%d" y="%d" xml:space="preserve">%s</text>`+"\n",
				padding, padding+lineHeight*n+14, spans(line))
		}
	}

	b.WriteString("</svg>\n")

	return b.String()
}

// spans turns colours for a terminal into elements whose class is the colour.
func spans(line string) string {
	var (
		b    strings.Builder
		open int
		at   int
	)

	for _, m := range escape.FindAllStringIndex(line, -1) {
		b.WriteString(html.EscapeString(line[at:m[0]]))
		at = m[1]

		if code := line[m[0]+2 : m[1]-1]; code != "0" {
			fmt.Fprintf(&b, `<tspan class="c%s">`, code)
			open++

			continue
		}

		b.WriteString(strings.Repeat("</tspan>", open))
		open = 0
	}

	b.WriteString(html.EscapeString(line[at:]))

	return b.String()
}
