package pglockerotel

import (
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/ismurov/pglocker"
)

// Option changes what [NewObserver] returns.
type Option func(*options)

type options struct {
	meters   metric.MeterProvider
	tracers  trace.TracerProvider
	classify func(kind pglocker.Kind, name string) string
}

// WithMeterProvider sets where the metrics go. Default: OpenTelemetry's global provider.
func WithMeterProvider(p metric.MeterProvider) Option {
	return func(o *options) { o.meters = p }
}

// WithTracerProvider sets where the spans go. Default: OpenTelemetry's global provider.
func WithTracerProvider(p trace.TracerProvider) Option {
	return func(o *options) { o.tracers = p }
}

// WithClass sets what the attribute class is, by the kind and the name of a lock or a recipe ([pglocker.Subject]). For
// a lock the name is its id. "" leaves the attribute out. Default: it is left out.
//
// A class is meant to stand for many locks: "invoice" for "invoice/4711". Of each kind, 50 classes are told apart.
// What comes later has the class "_OTHER". What isn't valid UTF-8 in a class is replaced by U+FFFD. The function is
// called for each event, by many goroutines at once.
func WithClass(classify func(kind pglocker.Kind, name string) string) Option {
	return func(o *options) { o.classify = classify }
}

func newOptions(opts []Option) options {
	o := options{
		meters:   otel.GetMeterProvider(),
		tracers:  otel.GetTracerProvider(),
		classify: func(pglocker.Kind, string) string { return "" },
	}

	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}

	return o
}
