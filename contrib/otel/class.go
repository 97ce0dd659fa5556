package pglockerotel

import (
	"strings"
	"sync"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"

	"github.com/ismurov/pglocker"
)

const (
	// maxClasses is how many classes of each kind are told apart.
	maxClasses = 50
	// other is the class of what comes later, and the type of an error that has none.
	other = "_OTHER"
)

// class is one of locks that are counted together.
type class struct {
	labels
	// lost are the labels of losses, by whether the database said that the lease was over.
	lost map[bool]labels

	// mu guards results.
	mu sync.RWMutex
	// results are the labels of what ended. There are as many as outcomes and SQLSTATEs.
	results map[result]labels
}

func newClass(attrs ...attribute.KeyValue) *class {
	c := &class{labels: newLabels(attrs...), results: make(map[result]labels)}
	c.lost = map[bool]labels{
		true:  c.with(attribute.String("reason", "gone")),
		false: c.with(attribute.String("reason", "unconfirmed")),
	}

	return c
}

// of returns the labels of what ended with a result.
func (c *class) of(r result) labels {
	c.mu.RLock()
	known, ok := c.results[r]
	c.mu.RUnlock()

	if ok {
		return known
	}

	known = c.with(r.attributes()...)

	c.mu.Lock()
	defer c.mu.Unlock()

	c.results[r] = known

	return known
}

// classes are the classes of locks that have been seen.
type classes struct {
	classify func(kind pglocker.Kind, name string) string
	// appeared is called once with each class.
	appeared func(*class)
	// none is that of renewals of several kinds.
	none *class

	// mu guards seen.
	mu   sync.RWMutex
	seen map[pglocker.Kind]map[string]*class
}

// of returns the class of what an event is about.
func (c *classes) of(s pglocker.Subject) *class {
	if s.Kind == "" {
		return c.none
	}

	// One label that isn't valid UTF-8, of an id that was cut for example, would make a whole scrape fail.
	name := c.classify(s.Kind, s.Name)
	if !utf8.ValidString(name) {
		name = strings.ToValidUTF8(name, string(utf8.RuneError))
	}

	c.mu.RLock()
	known := c.seen[s.Kind][name]
	if known == nil && len(c.seen[s.Kind]) > maxClasses {
		known = c.seen[s.Kind][other]
	}
	c.mu.RUnlock()

	if known == nil {
		known = c.see(s.Kind, name)
	}

	return known
}

// see returns a class that may be new.
func (c *classes) see(kind pglocker.Kind, name string) *class {
	c.mu.Lock()
	defer c.mu.Unlock()

	all := c.seen[kind]
	if all == nil {
		all = make(map[string]*class)
		c.seen[kind] = all
	}

	if all[name] == nil && len(all) >= maxClasses {
		name = other
	}

	if all[name] == nil {
		attrs := []attribute.KeyValue{attribute.String("kind", string(kind))}
		if name != "" {
			attrs = append(attrs, attribute.String("class", name))
		}

		all[name] = newClass(attrs...)
		c.appeared(all[name])
	}

	return all[name]
}
