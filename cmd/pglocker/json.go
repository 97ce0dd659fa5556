package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// printJSON prints one value on a line of its own.
func (a *app) printJSON(value any) error {
	text, err := marshal(value)
	if err == nil {
		_, err = fmt.Fprintf(a.stdout, "%s\n", text)
	}

	return err
}

// marshal writes JSON that changes nothing on a terminal: what others may have put into an id or an owner is escaped,
// where it doesn't print. Outside of strings JSON has no such characters.
func marshal(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil || bytes.IndexFunc(text, control) < 0 {
		return text, err
	}

	var safe []byte

	for _, r := range string(text) {
		switch units := utf16.AppendRune(nil, r); {
		case !control(r):
			safe = utf8.AppendRune(safe, r)
		case len(units) == 2:
			safe = fmt.Appendf(safe, `\u%04x\u%04x`, units[0], units[1])
		default:
			safe = fmt.Appendf(safe, `\u%04x`, r)
		}
	}

	return safe, nil
}

// elements prints a JSON array, an element at a time.
type elements[T any] struct {
	to                       *bufio.Writer
	begin, between, none, at string
	count                    int
}

// newArray is an array with a line for each element.
func newArray[T any](to io.Writer) *elements[T] {
	return &elements[T]{to: bufio.NewWriter(to), begin: "[\n ", between: ",\n ", none: "[]\n", at: "\n]\n"}
}

// newLineOf is an object on one line that has an array under the name, and the time under "at".
func newLineOf[T any](to io.Writer, at time.Time, name string) *elements[T] {
	stamp, _ := marshal(at)
	begin := fmt.Sprintf(`{"at":%s,"%s":[`, stamp, name)

	return &elements[T]{to: bufio.NewWriter(to), begin: begin, between: ",", none: begin + "]}\n", at: "]}\n"}
}

func (e *elements[T]) add(element T) error {
	text, err := marshal(element)
	if err != nil {
		return err
	}

	separator := e.between
	if e.count == 0 {
		separator = e.begin
	}

	e.count++
	_, _ = e.to.WriteString(separator)
	_, err = e.to.Write(text)

	return err
}

// end ends the array. The caller calls it once, if nothing failed: half an array is no JSON.
func (e *elements[T]) end() error {
	last := e.at
	if e.count == 0 {
		last = e.none
	}

	_, _ = e.to.WriteString(last)

	return e.to.Flush()
}
