package analysis

import (
	"go/ast"
	"go/types"
	"slices"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/types/typeutil"
)

// releases is the fact that a function finds a lock in a context, or releases one by its status, and so may unlock what
// it is given no lock of.
type releases struct{}

// AFact makes it one.
func (*releases) AFact() {}

// String is what tests of facts compare.
func (*releases) String() string { return "releases" }

// findReleases exports the fact of each function of the package that has it, by itself or by a function that it calls.
// The library's own don't unlock what their callers hold.
func findReleases(pass *analysis.Pass) {
	if pass.Pkg.Path() == library {
		return
	}

	for changed := true; changed; {
		changed = false

		for _, file := range pass.Files {
			for _, decl := range file.Decls {
				decl, ok := decl.(*ast.FuncDecl)
				if !ok || decl.Body == nil {
					continue
				}

				fn, ok := pass.TypesInfo.Defs[decl.Name].(*types.Func)
				if !ok || pass.ImportObjectFact(fn, new(releases)) || !callsReleases(pass, decl.Body) {
					continue
				}

				pass.ExportObjectFact(fn, new(releases))

				changed = true
			}
		}
	}
}

// callsReleases reports whether a body calls a function that has the fact, or what gives it to a function.
func callsReleases(pass *analysis.Pass, body *ast.BlockStmt) (calls bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			fn, ok := pass.TypesInfo.Uses[id].(*types.Func)
			calls = calls || ok && hasReleases(pass, fn)
		}

		return !calls
	})

	return calls
}

func hasReleases(pass *analysis.Pass, fn *types.Func) bool {
	if ofLibrary(fn) {
		return slices.Contains([]string{"FromContext", "ReleaseLock", "ForceRelease"}, fn.Name())
	}

	return pass.ImportObjectFact(fn.Origin(), new(releases))
}

// escapes reports whether the lock may be unlocked by what isn't given the lock itself, but its context or its status:
// one of these leaves the function, or is given to a function that may unlock.
func (t *taken) escapes(pass *analysis.Pass, body *ast.BlockStmt) (escapes bool) {
	carriers := objects{}

	for changed := true; changed; {
		changed = false

		assignments(body, func(left, right []ast.Expr) {
			for i, e := range left {
				if !t.carries(right[min(i, len(right)-1)], carriers) || !mayCarry(t.info.TypeOf(e)) {
					continue
				}

				id, ok := ast.Unparen(e).(*ast.Ident)

				switch {
				case !ok:
					escapes = true // a field
				case id.Name == "_":
				case t.info.ObjectOf(id).Pos() < body.Pos() || body.End() < t.info.ObjectOf(id).Pos():
					escapes = true
				default:
					changed = carriers.add(t.info, id) || changed
				}
			}
		})
	}

	ast.PreorderStack(body, nil, func(n ast.Node, stack []ast.Node) bool {
		e, ok := n.(ast.Expr)
		if !escapes && ok && t.isSource(e, carriers) {
			escapes = t.leaves(pass, e, stack)
		}

		return !escapes
	})

	return escapes
}

// mayCarry reports whether a value of a type may lead to a lock.
func mayCarry(t types.Type) bool {
	return t != nil && !isError(t) && (isOfLibrary(t) || canTell(t, 4))
}

// isSource reports whether an expression is the lock's context or status, or one of the variables that carry these.
func (t *taken) isSource(e ast.Expr, carriers objects) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return carriers[t.info.Uses[e]]
	case *ast.CallExpr:
		selector, ok := e.Fun.(*ast.SelectorExpr)
		if !ok || selector.Sel.Name != "Context" && selector.Sel.Name != "Status" {
			return false
		}

		id, ok := ast.Unparen(selector.X).(*ast.Ident)

		return ok && t.info.ObjectOf(id) == t.lock
	}

	return false
}

// carries reports whether an expression has a source in it.
func (t *taken) carries(e ast.Expr, carriers objects) (carries bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		carries = carries || ok && t.isSource(e, carriers)

		return !carries
	})

	return carries
}

// leaves reports whether an expression, or what is made from it, is returned, sent, or given to a function that may
// unlock. stack is the nodes around it.
func (t *taken) leaves(pass *analysis.Pass, e ast.Expr, stack []ast.Node) bool {
	for i := len(stack) - 1; i >= 0; i-- {
		switch n := stack[i].(type) {
		case *ast.ReturnStmt, *ast.SendStmt:
			return mayCarry(t.info.TypeOf(e))
		case *ast.CallExpr:
			if t.mayUnlockIn(pass, n) {
				return true
			}

			e = n
		case *ast.SelectorExpr, *ast.KeyValueExpr:
		case ast.Expr:
			e = n
		default:
			return false
		}

		if _, isCall := stack[i].(*ast.CallExpr); isCall && !makesCarrier(t.info.TypeOf(e)) {
			return false
		}
	}

	return false
}

// makesCarrier reports whether the results of a call may lead to a lock.
func makesCarrier(t types.Type) bool {
	tuple, ok := t.(*types.Tuple)
	if !ok {
		return mayCarry(t)
	}

	for v := range tuple.Variables() {
		if mayCarry(v.Type()) {
			return true
		}
	}

	return false
}

// mayUnlockIn reports whether a call may unlock the lock of a context that it is given. A function that isn't known may;
// a method of an interface may if its package knows pglocker.
func (t *taken) mayUnlockIn(pass *analysis.Pass, call *ast.CallExpr) bool {
	if t.info.Types[call.Fun].IsType() {
		return false
	}

	switch fn := typeutil.Callee(t.info, call).(type) {
	case *types.Builtin:
		return false
	case *types.Func:
		if recv := fn.Signature().Recv(); recv != nil && types.IsInterface(recv.Type()) && fn.Pkg() != nil {
			return fn.Pkg() == pass.Pkg || slices.ContainsFunc(fn.Pkg().Imports(), func(p *types.Package) bool { return p.Path() == library })
		}

		return hasReleases(pass, fn)
	}

	return true
}

// closedBeside reports whether a function around the call defers something that may close the Locker that the lock is
// taken from: it is given the Locker, or was returned beside it.
func closedBeside(info *types.Info, call *ast.CallExpr, stack []ast.Node) (closed bool) {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}

	id, ok := ast.Unparen(selector.X).(*ast.Ident)
	if !ok {
		return false
	}

	locker, beside := objects{}, objects{}
	locker.add(info, id)

	for _, n := range stack {
		if paramsOf(n) == nil {
			continue
		}

		assignments(n, func(left, _ []ast.Expr) {
			if !slices.ContainsFunc(left, func(e ast.Expr) bool { return locker.has(info, e) }) {
				return
			}

			for _, e := range left {
				if id, ok := e.(*ast.Ident); ok && !locker.has(info, e) && !isError(info.TypeOf(e)) {
					beside.add(info, id)
				}
			}
		})

		ast.Inspect(n, func(n ast.Node) bool {
			if n, ok := n.(*ast.DeferStmt); ok {
				closed = closed || beside.in(info, n) ||
					slices.ContainsFunc(n.Call.Args, func(e ast.Expr) bool { return locker.has(info, e) })
			}

			return !closed
		})
	}

	return closed
}

// assigns reports whether a node gives a variable another value.
func assigns(info *types.Info, node ast.Node, obj types.Object) bool {
	assign, ok := node.(*ast.AssignStmt)

	return ok && slices.ContainsFunc(assign.Lhs, func(e ast.Expr) bool {
		id, ok := ast.Unparen(e).(*ast.Ident)

		return ok && info.ObjectOf(id) == obj
	})
}
