package store

import (
	"strconv"
	"strings"
	"sync/atomic"
)

// request is what one caller asks of one lock. Which fields count depends on the verb.
type request struct {
	shape      *shape
	id         string
	owner      string
	ttl        int64 // microseconds
	generation int64
	hold       int64 // microseconds
	// seen is [State].Until in microseconds, see sqlSeen. 0 is none.
	seen int64
	// mark, in microseconds, and signature are those of a claim.
	mark, signature int64
	// owners are those of a return, as an array literal.
	owners string
	// permits, want, writes and origin are those of a request for slots. origin is a generation.
	permits, want, writes, origin int64
	// lazily is 1 if the commit of its grants needn't be waited for.
	lazily int64
	// gate is that of the family of a slot.
	gate string
	// reason is that of a forced release.
	reason string
	// discard: if the caller has left, nobody wants the grant.
	discard bool
	// progress is told when it is sent.
	progress *atomic.Bool
}

// parameter is one value of a request: a text or a number.
type parameter struct {
	name   string
	text   func(*request) string
	number func(*request) int64
	// six: only a table of six columns has a use for it.
	six bool
}

var (
	paramID         = parameter{name: "lock_id", text: func(r *request) string { return r.id }}
	paramOwner      = parameter{name: "owner", text: func(r *request) string { return r.owner }, six: true}
	paramOwners     = parameter{name: "owners", text: func(r *request) string { return r.owners }}
	paramTTL        = parameter{name: "ttl", number: func(r *request) int64 { return r.ttl }}
	paramGeneration = parameter{name: "generation", number: func(r *request) int64 { return r.generation }}
	paramHold       = parameter{name: "hold", number: func(r *request) int64 { return r.hold }}
	paramSeen       = parameter{name: "seen", number: func(r *request) int64 { return r.seen }, six: true}
	paramMark       = parameter{name: "mark", number: func(r *request) int64 { return r.mark }}
	paramFamily     = parameter{name: "family", text: func(r *request) string { return r.id }}
	paramPermits    = parameter{name: "permits", number: func(r *request) int64 { return r.permits }}
	paramWant       = parameter{name: "want", number: func(r *request) int64 { return r.want }}
	paramWrites     = parameter{name: "writes", number: func(r *request) int64 { return r.writes }}
	paramOrigin     = parameter{name: "origin", number: func(r *request) int64 { return r.origin }}
	paramLazily     = parameter{name: "lazily", number: func(r *request) int64 { return r.lazily }}
	paramReason     = parameter{name: "reason", text: func(r *request) string { return r.reason }}
	paramGate       = parameter{name: "gate", text: func(r *request) string { return r.gate }, six: true}
	paramOfGate     = parameter{name: "family", text: func(r *request) string { return strings.TrimSuffix(r.gate, PartGate) }}
	paramSignature  = parameter{name: "signature", number: func(r *request) int64 { return r.signature }}
)

// parameters are those of a statement. Those for six columns come last.
type parameters []parameter

// shaped leaves out what a table of three columns has no use for.
func (p parameters) shaped(full bool) parameters {
	for !full && len(p) > 0 && p[len(p)-1].six {
		p = p[:len(p)-1]
	}

	return p
}

// inOne writes the parameters into a statement for one request: {ttl} is $2::bigint, say.
func (p parameters) inOne(text string, full bool) string {
	for i, param := range p.shaped(full) {
		value := "$" + strconv.Itoa(i+1)
		if param.number != nil {
			value += "::bigint"
		}

		text = strings.ReplaceAll(text, "{"+param.name+"}", value)
	}

	return text
}

// inMany writes the parameters into a statement for several, which gets arrays: {ttl} is r.ttl.
// Hidden in a subquery, an array can't tempt the planner to plan for its length, time and again.
func (p parameters) inMany(text string, full bool) string {
	var arrays, columns []string

	for i, param := range p.shaped(full) {
		kind := "{text}[]"
		if param.number != nil {
			kind = "bigint[]"
		}

		text = strings.ReplaceAll(text, "{"+param.name+"}", "r."+param.name)
		arrays = append(arrays, "pg_catalog.unnest((SELECT $"+strconv.Itoa(i+1)+"::"+kind+"))")
		columns = append(columns, param.name)
	}

	text = strings.ReplaceAll(text, "{requests}", "ROWS FROM ("+strings.Join(arrays, ", ")+")")

	return strings.ReplaceAll(text, "{columns}", strings.Join(columns, ", "))
}

// ofOne are the arguments for one request.
func (p parameters) ofOne(r *request, full bool) []any {
	p = p.shaped(full)
	args := make([]any, len(p))

	for i, param := range p {
		if param.text != nil {
			args[i] = param.text(r)
		} else {
			args[i] = param.number(r)
		}
	}

	return args
}

// ofMany are the arguments for several requests.
func (p parameters) ofMany(reqs []request, full bool) []any {
	p = p.shaped(full)
	args := make([]any, len(p))

	for i, param := range p {
		if param.text != nil {
			args[i] = valuesOf(reqs, param.text)
		} else {
			args[i] = valuesOf(reqs, param.number)
		}
	}

	return args
}

// valuesOf is one value of each.
func valuesOf[T, V any](of []T, value func(*T) V) []V {
	values := make([]V, len(of))
	for i := range of {
		values[i] = value(&of[i])
	}

	return values
}
