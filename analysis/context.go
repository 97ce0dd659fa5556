package analysis

import (
	"go/ast"
	"go/types"

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

The context that Do was given, those that it was made from, and those that the function makes from them, are reported as
arguments of calls. They aren't where they may be meant: in defer and go statements and in functions that run later;
after an error, or after the end of the function's own context; beside that context, or the lock; in calls that clean
up, log, or read values; and nowhere if the function watches its own context by context.AfterFunc or in a goroutine.

An ignored context is reported if the function waits (time.Sleep for more than a second, a channel), passes
context.Background(), or calls what has a variant with a context, such as DB.Exec. It isn't if the function uses
something else of pglocker's.`,
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
			u.outer = outerContexts(pass.TypesInfo, call, stack)
			if !u.outside(fn) {
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

// declaration is that of a function or method of the package, nil for any other value.
func declaration(pass *analysis.Pass, value ast.Expr) *ast.FuncDecl {
	id, ok := value.(*ast.Ident)
	if selector, is := value.(*ast.SelectorExpr); is {
		id, ok = selector.Sel, true
	}

	fn, isFunc := pass.TypesInfo.ObjectOf(id).(*types.Func)
	if !ok || !isFunc {
		return nil
	}

	return declarationOf(pass, fn)
}

// declarationOf is that of a function or method, nil if it isn't in the package.
func declarationOf(pass *analysis.Pass, fn *types.Func) *ast.FuncDecl {
	if fn == nil || fn.Pkg() != pass.Pkg {
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
	// outer are contexts that don't end with the lock, as far as that is known.
	outer objects
}
