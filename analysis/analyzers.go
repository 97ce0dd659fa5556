package analysis

import (
	"go/ast"
	"go/types"
	"slices"

	"golang.org/x/tools/go/analysis"
)

// library is the import path of what is checked.
const library = "github.com/ismurov/pglocker"

// Analyzers returns all analyzers of this package, for a multichecker or a linter.
func Analyzers() []*analysis.Analyzer { return []*analysis.Analyzer{Context, Unlock} }

// ofLibrary reports whether obj is declared in pglocker's root package.
func ofLibrary(obj types.Object) bool { return obj.Pkg() != nil && obj.Pkg().Path() == library }

// isContext reports whether t is context.Context.
func isContext(t types.Type) bool { return isNamed(t, "context", "Context") }

// isNamed reports whether t is the type of that package and name.
func isNamed(t types.Type, pkg, name string) bool {
	named, ok := types.Unalias(t).(*types.Named)
	if !ok || named.Obj().Pkg() == nil {
		return false
	}

	return named.Obj().Pkg().Path() == pkg && named.Obj().Name() == name
}

// takesTest reports whether a function is a test, or belongs to one: it has a *testing.T or a relative as a parameter.
func takesTest(info *types.Info, params *ast.FieldList) bool {
	return slices.ContainsFunc(params.List, func(field *ast.Field) bool {
		t := info.TypeOf(field.Type)
		if pointer, ok := t.(*types.Pointer); ok {
			t = pointer.Elem()
		}

		return slices.ContainsFunc([]string{"T", "B", "F", "TB"}, func(name string) bool { return isNamed(t, "testing", name) })
	})
}

// paramsOf is the parameters of a function's declaration or literal, nil for another node.
func paramsOf(n ast.Node) *ast.FieldList {
	switch n := n.(type) {
	case *ast.FuncDecl:
		return n.Type.Params
	case *ast.FuncLit:
		return n.Type.Params
	}

	return nil
}

// inTest reports whether one of the enclosing nodes is a test.
func inTest(info *types.Info, stack []ast.Node) bool {
	return slices.ContainsFunc(stack, func(n ast.Node) bool {
		params := paramsOf(n)

		return params != nil && takesTest(info, params)
	})
}
