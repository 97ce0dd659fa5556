package analysis

import (
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/cfg"
	"golang.org/x/tools/go/types/typeutil"
)

// verdict is what a branch says about a lock.
type verdict int

const (
	// same: nothing new.
	same verdict = iota
	// granting: the error of the call is nil.
	granting
	// over: the lock wasn't granted, or is lost; or it can't be known.
	over
)

// condition is what decides where a block goes on, nil for one that has one way on.
func condition(block *cfg.Block) ast.Expr {
	if len(block.Succs) != 2 || len(block.Nodes) == 0 {
		return nil
	}

	cond, _ := block.Nodes[len(block.Nodes)-1].(ast.Expr)

	return cond
}

// judge says what one branch of a condition, that where it holds or the other, means for the lock.
func (t *taken) judge(cond ast.Expr, holds bool, known knows) verdict {
	var aboutErr, aboutEnd bool

	value, whereNil := nilCompared(cond)
	if value != nil {
		id, ok := value.(*ast.Ident)
		aboutErr = ok && t.err != nil && t.info.ObjectOf(id) == t.err && !known.changed
		aboutEnd = saysEnd(t.info, value)
	}

	switch {
	case aboutErr && whereNil == holds:
		return granting
	case aboutErr:
		return over
	case aboutEnd && whereNil != holds:
		return over
	case aboutEnd:
		return same
	case matchesError(t.info, cond): // errors.Is(err, ErrAlreadyLocked), errors.Is(err, ErrLockLost)
		if holds && (t.mentionsLibrary(cond) || !known.granted && t.mentions(cond, t.err)) {
			return over
		}
	case !known.granted && t.mentions(cond, t.err):
		return over
	case t.mentionsEnd(cond):
		return over
	}

	return same
}

// nilCompared is what a condition compares with nil, nil if it doesn't. whereNil: the condition holds if it is nil.
func nilCompared(cond ast.Expr) (value ast.Expr, whereNil bool) {
	compare, ok := ast.Unparen(cond).(*ast.BinaryExpr)
	if !ok || compare.Op != token.EQL && compare.Op != token.NEQ {
		return nil, false
	}

	if id, ok := ast.Unparen(compare.Y).(*ast.Ident); !ok || id.Name != "nil" {
		return nil, false
	}

	return ast.Unparen(compare.X), compare.Op == token.EQL
}

// saysEnd reports whether a value is ctx.Err() or context.Cause(ctx).
func saysEnd(info *types.Info, value ast.Expr) bool {
	call, ok := value.(*ast.CallExpr)
	if !ok {
		return false
	}

	if isContextMethod(info, call, "Err") {
		return true
	}

	fn := typeutil.StaticCallee(info, call)

	return fn != nil && fn.Pkg() != nil && fn.Pkg().Path() == "context" && fn.Name() == "Cause"
}

// isContextMethod reports whether call is that of a context's method.
func isContextMethod(info *types.Info, call *ast.CallExpr, name string) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)

	return ok && selector.Sel.Name == name && isContext(info.TypeOf(selector.X))
}

// matchesError reports whether a condition is a call of errors.Is, errors.As or a relative.
func matchesError(info *types.Info, cond ast.Expr) bool {
	call, ok := ast.Unparen(cond).(*ast.CallExpr)
	if !ok {
		return false
	}

	fn := typeutil.StaticCallee(info, call)

	return fn != nil && fn.Pkg() != nil && fn.Pkg().Path() == "errors"
}

// mentionsLibrary reports whether an expression names something of pglocker's, such as one of its errors.
func (t *taken) mentionsLibrary(expr ast.Expr) (found bool) {
	ast.Inspect(expr, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			obj := t.info.ObjectOf(id)
			found = found || obj != nil && ofLibrary(obj)
		}

		return !found
	})

	return found
}

// mentionsEnd reports whether a condition asks a context whether it has ended, in a way that isn't understood here.
func (t *taken) mentionsEnd(cond ast.Expr) (found bool) {
	ast.Inspect(cond, func(n ast.Node) bool {
		if expr, ok := n.(ast.Expr); ok {
			found = found || saysEnd(t.info, expr)
		}

		return !found
	})

	return found
}
