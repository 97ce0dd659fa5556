package analysis

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"

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

// isError reports whether t is error.
func isError(t types.Type) bool {
	return t != nil && types.Identical(t, types.Universe.Lookup("error").Type())
}

// isOfLibrary reports whether t is a type of pglocker's, or a pointer to one.
func isOfLibrary(t types.Type) bool {
	if pointer, ok := t.(*types.Pointer); ok {
		t = pointer.Elem()
	}

	named, ok := types.Unalias(t).(*types.Named)

	return ok && ofLibrary(named.Obj())
}

// isLock reports whether t is what pglocker's methods return that take locks: something to unlock.
func isLock(t types.Type) bool {
	if t == nil || !isOfLibrary(t) {
		return false
	}

	unlock, _, _ := types.LookupFieldOrMethod(t, true, nil, "Unlock")

	return unlock != nil
}

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

// inTest reports whether nodes that enclose each other, from the inside out, belong to a test: one is a function that
// takes a *testing.T or a relative, or the file is one of tests. Examples there show how things are done.
func inTest(pass *analysis.Pass, stack []ast.Node) bool {
	inFile := strings.HasSuffix(pass.Fset.Position(stack[0].Pos()).Filename, "_test.go")

	for _, n := range stack {
		if params := paramsOf(n); params != nil && takesTest(pass.TypesInfo, params) {
			return true
		}

		if decl, ok := n.(*ast.FuncDecl); ok && strings.HasPrefix(decl.Name.Name, "Example") {
			inFile = false
		}
	}

	return inFile
}
