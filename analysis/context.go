package analysis

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/types/typeutil"
)

// Context reports functions that work under a lock by another context than the lock's.
var Context = &analysis.Analyzer{
	Name: "pglockercontext",
	Doc: `report functions under a lock that don't work by its context

The function that Do runs gets a context that ends when the lock is lost. Work that goes by another context, or by
none, goes on beside that of the next holder.

Contexts from outside are reported as arguments of calls, except where they are passed on purpose: in defer and go
statements, to Unlock and Close, to loggers, and to functions that only read values. An ignored context is reported
if the function waits (time.Sleep, a channel), passes another context, or calls what has a variant with a context,
such as DB.Exec.`,
	URL:      "https://pkg.go.dev/github.com/ismurov/pglocker/analysis",
	Requires: []*analysis.Analyzer{inspect.Analyzer},
	Run:      runContext,
}

func runContext(pass *analysis.Pass) (any, error) {
	checked := map[*ast.FuncDecl]bool{}

	for cursor := range pass.ResultOf[inspect.Analyzer].(*inspector.Inspector).Root().Preorder((*ast.CallExpr)(nil)) {
		call := cursor.Node().(*ast.CallExpr)

		method, index := runner(pass.TypesInfo, call)
		if method == nil {
			continue
		}

		var stack []ast.Node
		for c := range cursor.Enclosing() {
			stack = append(stack, c.Node())
		}

		if inTest(pass, stack) {
			continue
		}

		u := under{pass: pass, method: method.Name()}

		switch fn := ast.Unparen(call.Args[index]).(type) {
		case *ast.FuncLit:
			if !u.outside(fn, outerContexts(pass.TypesInfo, call, stack)) {
				u.ignored(fn.Type, fn.Body)
			}
		case *ast.Ident, *ast.SelectorExpr:
			if decl := declaration(pass, fn); decl != nil && !checked[decl] {
				checked[decl] = true
				u.ignored(decl.Type, decl.Body)
			}
		}
	}

	return nil, nil
}

// runner is the method of pglocker that runs a function under a lock, and which argument that is. It is nil if
// call isn't such a method's.
func runner(info *types.Info, call *ast.CallExpr) (method *types.Func, index int) {
	fn := typeutil.StaticCallee(info, call)
	if fn == nil || !ofLibrary(fn) || !fn.Exported() || fn.Signature().Recv() == nil {
		return nil, 0
	}

	params := fn.Signature().Params()
	if params.Len() == 0 || !isContext(params.At(0).Type()) || params.Len() > len(call.Args)+1 {
		return nil, 0
	}

	for i := 1; i < min(params.Len(), len(call.Args)); i++ {
		takes, ok := params.At(i).Type().Underlying().(*types.Signature)
		if ok && takes.Params().Len() > 0 && isContext(takes.Params().At(0).Type()) {
			return fn, i
		}
	}

	return nil, 0
}

// outerContexts is the contexts that a function under a lock has no business with: the one that was given to the
// method, and those that are parameters of the functions around it.
func outerContexts(info *types.Info, call *ast.CallExpr, stack []ast.Node) map[types.Object]bool {
	outer := map[types.Object]bool{}

	if id, ok := ast.Unparen(call.Args[0]).(*ast.Ident); ok {
		outer[info.ObjectOf(id)] = true
	}

	for _, n := range stack {
		params := paramsOf(n)
		if params == nil {
			continue
		}

		for _, field := range params.List {
			for _, name := range field.Names {
				if isContext(info.TypeOf(field.Type)) {
					outer[info.ObjectOf(name)] = true
				}
			}
		}
	}

	return outer
}

// declaration is that of a function or method of the package, nil for any other value.
func declaration(pass *analysis.Pass, value ast.Expr) *ast.FuncDecl {
	id, ok := value.(*ast.Ident)
	if selector, is := value.(*ast.SelectorExpr); is {
		id, ok = selector.Sel, true
	}

	fn, isFunc := pass.TypesInfo.ObjectOf(id).(*types.Func)
	if !ok || !isFunc || fn.Pkg() != pass.Pkg {
		return nil
	}

	for _, file := range pass.Files {
		for _, decl := range file.Decls {
			if decl, ok := decl.(*ast.FuncDecl); ok && pass.TypesInfo.ObjectOf(decl.Name) == fn.Origin() && decl.Body != nil {
				return decl
			}
		}
	}

	return nil
}

// under checks a function that works under a lock.
type under struct {
	pass   *analysis.Pass
	method string
}

// outside reports the calls in fn that are given one of the outer contexts. It tells whether there are any.
func (u under) outside(fn *ast.FuncLit, outer map[types.Object]bool) (found bool) {
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.DeferStmt, *ast.GoStmt:
			return false // it may be meant to outlast the lock
		case *ast.CallExpr:
			if u.mayPass(n) {
				return true
			}

			for _, arg := range n.Args {
				id, ok := ast.Unparen(arg).(*ast.Ident)
				if !ok || !outer[u.pass.TypesInfo.ObjectOf(id)] {
					continue
				}

				found = true

				u.pass.Reportf(id.Pos(), "%s is from outside of %s's function: it doesn't end when the lock is lost; "+
					"use the function's own context", id.Name, u.method)
			}
		}

		return true
	})

	return found
}

// mayPass reports whether a call may have a context that doesn't end with the lock: it cleans up, logs, or reads
// values.
func (u under) mayPass(call *ast.CallExpr) bool {
	fn, ok := typeutil.Callee(u.pass.TypesInfo, call).(*types.Func)
	if !ok || fn.Pkg() == nil {
		return false
	}

	name := fn.Name()

	switch fn.Pkg().Path() {
	case "log/slog":
		return true
	case "context":
		return name == "WithoutCancel" || name == "Cause" || name == "AfterFunc"
	case library:
		return fn.Signature().Recv() == nil || name == "Unlock" || name == "Close" || name == "ReleaseLock"
	}

	return strings.HasSuffix(name, "FromContext") || slices.Contains([]string{"Close", "Rollback", "Shutdown"}, name)
}

// ignored reports a function that doesn't use its context, though it does what a context is for.
func (u under) ignored(t *ast.FuncType, body *ast.BlockStmt) {
	param := t.Params.List[0]
	if len(param.Names) > 0 && u.uses(body, u.pass.TypesInfo.ObjectOf(param.Names[0])) {
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

// couldEnd says what a body does that a context could end, "" if there is nothing.
func (u under) couldEnd(body *ast.BlockStmt) (does string) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt, *ast.DeferStmt, *ast.FuncLit:
			return false
		case *ast.SelectStmt:
			if !slices.ContainsFunc(n.Body.List, func(c ast.Stmt) bool { return c.(*ast.CommClause).Comm == nil }) {
				does = "waits in a select"
			}

			return false
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				does = "waits for a channel"
			}
		case *ast.RangeStmt:
			if t := u.pass.TypesInfo.TypeOf(n.X); t != nil {
				if _, ok := t.Underlying().(*types.Chan); ok {
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

// callCouldEnd is couldEnd for one call.
func (u under) callCouldEnd(call *ast.CallExpr) string {
	fn, ok := typeutil.Callee(u.pass.TypesInfo, call).(*types.Func)
	if !ok || fn.Pkg() == nil {
		return ""
	}

	name := fn.Name()

	if fn.Pkg().Path() == "time" && name == "Sleep" {
		return "calls time.Sleep"
	}

	if params := fn.Signature().Params(); params.Len() > 0 && len(call.Args) > 0 && isContext(params.At(0).Type()) {
		return "calls " + name + " with another"
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
