package pglockerotel

import (
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// labels are attributes, ready for instruments: what a set costs is paid once. They must not be changed.
type labels struct {
	attrs  []attribute.KeyValue
	add    []metric.AddOption
	record []metric.RecordOption
}

func newLabels(attrs ...attribute.KeyValue) labels {
	// NewSet sorts what it is given.
	option := metric.WithAttributeSet(attribute.NewSet(slices.Clone(attrs)...))

	return labels{
		attrs: attrs[:len(attrs):len(attrs)], // whoever appends gets a copy
		add:   []metric.AddOption{option}, record: []metric.RecordOption{option},
	}
}

// with returns labels that have more attributes.
func (l labels) with(more ...attribute.KeyValue) labels {
	return newLabels(append(l.attrs, more...)...)
}
