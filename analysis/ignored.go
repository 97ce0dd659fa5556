package analysis

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"time"

	"golang.org/x/tools/go/types/typeutil"
)

// ignored reports a function that doesn't use its context, though it does what a context is for.
func (u under) ignored(t *ast.FuncType, body *ast.BlockStmt) {
	param := t.Params.List[0]
	if len(param.Names) > 0 && u.uses(body, u.pass.TypesInfo.ObjectOf(param.Names[0])) {
		return
	}

	if u.goesByTheLibrary(body) {
		return
	}

	if does := u.couldEnd(body); does != "" {
		u.pass.Reportf(param.Pos(), "%s's function ignores its context, which ends when the lock is lost, but %s", u.method, does)
	}
}

func (u under) uses(body *ast.BlockStmt, obj types.Object) (found bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && u.pass.TypesInfo.Uses[id] == obj

		return !found
	})

	return found
}

// goesByTheLibrary reports whether a body uses something of pglocker's, such as a lock from outside, which may tell it the
// end in place of the context.
func (u under) goesByTheLibrary(body *ast.BlockStmt) (goes bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok {
			return !goes
		}

		obj := u.pass.TypesInfo.Uses[id]
		goes = goes || obj != nil && (ofLibrary(obj) || isOfLibrary(obj.Type()))

		return !goes
	})

	return goes
}

// couldEnd says what a body does that a context could end, "" if there is nothing.
func (u under) couldEnd(body *ast.BlockStmt) (does string) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt, *ast.DeferStmt, *ast.FuncLit:
			return false
		case *ast.SelectStmt:
			if !slices.ContainsFunc(n.Body.List, u.mayEndSelect) {
				does = "waits in a select"
			}

			return false
		case *ast.UnaryExpr:
			if n.Op == token.ARROW && u.waitsFor(n.X, body) {
				does = "waits for a channel"
			}
		case *ast.RangeStmt:
			if t := u.pass.TypesInfo.TypeOf(n.X); t != nil {
				if _, ok := t.Underlying().(*types.Chan); ok && u.waitsFor(n.X, body) {
					does = "waits for a channel"
				}
			}
		case *ast.CallExpr:
			if !u.mayPass(n) {
				does = u.callCouldEnd(n)
			}
		}

		return does == ""
	})

	return does
}

// mayEndSelect reports whether a clause makes a select end at once, or at the end of a context that isn't known.
func (u under) mayEndSelect(clause ast.Stmt) bool {
	comm := clause.(*ast.CommClause).Comm

	return comm == nil || seesEnd(u.pass.TypesInfo, comm) && !u.outer.in(u.pass.TypesInfo, comm)
}

// waitsFor reports whether a channel may keep the function waiting that receives from it. One of its own is filled by
// itself, a timer may be short, and the end of another context may be meant.
func (u under) waitsFor(channel ast.Expr, body *ast.BlockStmt) bool {
	switch channel := ast.Unparen(channel).(type) {
	case *ast.Ident:
		obj := u.pass.TypesInfo.ObjectOf(channel)

		return obj == nil || obj.Pos() < body.Pos() || body.End() < obj.Pos()
	case *ast.CallExpr:
		if isContextMethod(u.pass.TypesInfo, channel, "Done") {
			return u.outer.in(u.pass.TypesInfo, channel)
		}

		return len(channel.Args) != 1 || !u.isShort(channel.Args[0])
	}

	return true
}

// isShort reports whether an expression is a constant duration that a lock can do without the end of: a second at most.
func (u under) isShort(duration ast.Expr) bool {
	value := u.pass.TypesInfo.Types[duration].Value
	if value == nil || value.Kind() != constant.Int {
		return false
	}

	d, ok := constant.Int64Val(value)

	return ok && time.Duration(d) <= time.Second
}

// callCouldEnd is couldEnd for one call.
func (u under) callCouldEnd(call *ast.CallExpr) string {
	fn, ok := typeutil.Callee(u.pass.TypesInfo, call).(*types.Func)
	if !ok || fn.Pkg() == nil {
		return ""
	}

	name := fn.Name()

	if fn.Pkg().Path() == "time" && name == "Sleep" && !u.isShort(call.Args[0]) {
		return "calls time.Sleep"
	}

	if len(call.Args) > 0 && isContext(u.pass.TypesInfo.TypeOf(call.Args[0])) {
		if u.isBackground(call.Args[0]) && fn.Pkg().Path() != "context" {
			return "calls " + name + " with another"
		}

		return ""
	}

	recv := fn.Signature().Recv()
	if recv == nil {
		return ""
	}

	variant, _, _ := types.LookupFieldOrMethod(recv.Type(), true, fn.Pkg(), name+"Context")
	if method, ok := variant.(*types.Func); ok && method.Signature().Params().Len() > 0 &&
		isContext(method.Signature().Params().At(0).Type()) {
		return "calls " + name + ", not " + name + "Context"
	}

	return ""
}

// isBackground reports whether an expression is context.Background() or TODO().
func (u under) isBackground(e ast.Expr) bool {
	call, ok := ast.Unparen(e).(*ast.CallExpr)
	if !ok {
		return false
	}

	fn := typeutil.StaticCallee(u.pass.TypesInfo, call)

	return fn != nil && (fn.FullName() == "context.Background" || fn.FullName() == "context.TODO")
}
