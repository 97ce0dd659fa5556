package pglockerotel

import (
	"sync"

	"go.opentelemetry.io/otel/attribute"

	"github.com/ismurov/pglocker"
)

const (
	// maxClasses is how many classes of each kind are told apart.
	maxClasses = 50
	// other is the class of what comes later, and the type of an error that has none.
	other = "_OTHER"
)

// classes are the classes of locks that have been seen.
type classes struct {
	classify func(kind pglocker.Kind, name string) string
	// appeared is called once with the attributes of each class.
	appeared func([]attribute.KeyValue)

	// mu guards what follows.
	mu sync.Mutex
	// attributes are those of each class, by kind and class.
	attributes map[pglocker.Kind]map[string][]attribute.KeyValue
}

// of returns the attributes kind and class of what an event is about. They must not be changed.
func (c *classes) of(s pglocker.Subject) []attribute.KeyValue {
	if s.Kind == "" { // renewals of several kinds
		return nil
	}

	class := c.classify(s.Kind, s.Name)

	c.mu.Lock()
	defer c.mu.Unlock()

	known := c.attributes[s.Kind]
	if known == nil {
		known = make(map[string][]attribute.KeyValue)
		c.attributes[s.Kind] = known
	}

	if known[class] == nil && len(known) >= maxClasses {
		class = other
	}

	attrs := known[class]
	if attrs == nil {
		attrs = []attribute.KeyValue{attribute.String("kind", string(s.Kind))}
		if class != "" {
			attrs = append(attrs, attribute.String("class", class))
		}

		attrs = attrs[:len(attrs):len(attrs)] // whoever appends gets a copy
		known[class] = attrs
		c.appeared(attrs)
	}

	return attrs
}
