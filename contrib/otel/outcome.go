package pglockerotel

import (
	"context"
	"errors"
	"net"

	"go.opentelemetry.io/otel/attribute"

	"github.com/ismurov/pglocker"
)

// outcomeOf is the outcome of an operation.
func outcomeOf(end pglocker.OperationEnd) string {
	switch err := end.Err; {
	case err == nil && end.Operation == pglocker.OperationRelease:
		return "released"
	case err == nil && end.Operation == pglocker.OperationRenew:
		return "renewed"
	case err == nil && end.HandedOver:
		return "handed_over"
	case err == nil:
		return "granted"
	case errors.Is(err, pglocker.ErrUnknownOutcome):
		return "error"
	case errors.Is(err, pglocker.ErrLockLost), errors.Is(err, pglocker.ErrWrongGeneration), errors.Is(err, pglocker.ErrLockNotFound):
		return "lost"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "canceled"
	case errors.Is(err, pglocker.ErrAlreadyLocked):
		return "held"
	case errors.Is(err, pglocker.ErrClosed):
		return "closed"
	}

	return "error"
}

// holdOutcomeOf is the outcome of a hold that ended for that reason.
func holdOutcomeOf(err error) string {
	switch {
	case err == nil:
		return "released"
	case errors.Is(err, pglocker.ErrLockLost):
		return "lost"
	case errors.Is(err, pglocker.ErrClosed):
		return "closed"
	case errors.Is(err, pglocker.ErrResignRequested):
		return "resigned"
	case errors.Is(err, pglocker.ErrUnhealthy):
		return "unhealthy"
	}

	return "canceled"
}

// result is how something ended.
type result struct {
	outcome string
	// errorType is that of an outcome error, else "".
	errorType string
}

func resultOf(outcome string, err error) result {
	if outcome != "error" {
		return result{outcome: outcome}
	}

	return result{outcome, typeOf(err)}
}

// attributes are outcome and, of an error, error.type.
func (r result) attributes() []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("outcome", r.outcome)}
	if r.errorType != "" {
		attrs = append(attrs, attribute.String("error.type", r.errorType))
	}

	return attrs
}

// typeOf is one of few words for an error: the SQLSTATE if it has one.
func typeOf(err error) string {
	state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)

	switch {
	case errors.Is(err, pglocker.ErrUnknownOutcome):
		return "unknown_outcome"
	case ok && len(state.SQLState()) == 5:
		return state.SQLState()
	case isNetwork(err):
		return "network"
	}

	return other
}

func isNetwork(err error) bool {
	_, ok := errors.AsType[net.Error](err)

	return ok
}
