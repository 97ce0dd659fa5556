package analysis

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/tools/go/types/typeutil"
)

// Words in the names of functions that clean up, and of functions, types and packages that tell of the work. It doesn't
// matter to the lock by which context they go.
var (
	cleaning = []string{
		"abort", "clean", "cleanup", "close", "release", "restore", "revert", "rollback", "shutdown", "stop", "undo", "unlock",
	}
	telling   = []string{"debug", "log", "logf", "logger", "metric", "metrics", "span", "trace", "warn"}
	ofPackage = []string{
		"log", "logger", "logging", "logrus", "metric", "metrics", "otel", "prometheus", "sentry", "slog", "telemetry", "trace",
		"tracing", "zap", "zerolog",
	}
)

// mayPass reports whether a call may have a context that doesn't end with the lock: it cleans up, tells of the work, or
// reads values. Of pglocker's methods, all may but those that take locks.
func (u under) mayPass(call *ast.CallExpr) bool { return u.mayPassBut(call, map[*types.Func]bool{}) }

// mayPassBut is mayPass, where some functions are looked into already.
func (u under) mayPassBut(call *ast.CallExpr, seen map[*types.Func]bool) bool {
	fn, ok := typeutil.Callee(u.pass.TypesInfo, call).(*types.Func)
	if !ok || fn.Pkg() == nil {
		return ok || u.sounds(call.Fun)
	}

	name := fn.Name()

	switch fn.Pkg().Path() {
	case "context":
		return name == "WithoutCancel" || name == "Cause" || name == "AfterFunc"
	case library:
		method, _ := runner(u.pass.TypesInfo, call)

		return method == nil && !takesLock(u.pass.TypesInfo, call)
	}

	switch words := wordsOf(fn); {
	case strings.HasSuffix(name, "FromContext"), strings.HasSuffix(name, "FromCtx"):
		return true
	case has(words, cleaning), has(words, telling):
		return true
	case has(strings.FieldsFunc(fn.Pkg().Path(), func(r rune) bool { return strings.ContainsRune("/-_.", r) }), ofPackage):
		return true
	}

	return onlyReads(fn.Signature()) || u.harmless(fn, seen)
}

// sounds reports whether a function that isn't known by its declaration has a name of those above.
func (u under) sounds(fun ast.Expr) bool {
	switch fun := ast.Unparen(fun).(type) {
	case *ast.Ident:
		return has(split(fun.Name), cleaning) || has(split(fun.Name), telling)
	case *ast.SelectorExpr:
		return has(split(fun.Sel.Name), cleaning) || has(split(fun.Sel.Name), telling)
	}

	return false
}

// onlyReads reports whether a function has results, but no error and no context among them: work that a context can end
// has an error or nothing to return.
func onlyReads(fn *types.Signature) bool {
	for v := range fn.Results().Variables() {
		if isError(v.Type()) || isContext(v.Type()) {
			return false
		}
	}

	return fn.Results().Len() > 0
}

// harmless reports whether a function of this package does with the contexts that it is given only what is harmless.
func (u under) harmless(fn *types.Func, seen map[*types.Func]bool) bool {
	decl := declarationOf(u.pass, fn)
	if decl == nil {
		return false
	}

	if seen[fn] {
		return true
	}

	seen[fn] = true

	params := objects{}

	for _, field := range decl.Type.Params.List {
		for _, name := range field.Names {
			if isContext(u.pass.TypesInfo.TypeOf(field.Type)) {
				params.add(u.pass.TypesInfo, name)
			}
		}
	}

	harmless := true

	ast.PreorderStack(decl.Body, nil, func(n ast.Node, stack []ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok || !params[u.pass.TypesInfo.ObjectOf(id)] || !harmless {
			return harmless
		}

		switch parent := stack[len(stack)-1].(type) {
		case *ast.SelectorExpr:
			harmless = parent.Sel.Name != "Done"
		case *ast.CallExpr:
			harmless = u.mayPassBut(parent, seen)
		default:
			harmless = false
		}

		return harmless
	})

	return harmless
}

// wordsOf is the words in the names of a function and of its receiver's type.
func wordsOf(fn *types.Func) []string {
	if fn == nil {
		return nil
	}

	words := split(fn.Name())

	recv := fn.Signature().Recv()
	if recv == nil {
		return words
	}

	t := recv.Type()
	if pointer, ok := t.(*types.Pointer); ok {
		t = pointer.Elem()
	}

	if named, ok := types.Unalias(t).(*types.Named); ok {
		for _, word := range split(named.Obj().Name()) {
			if slices.Contains(ofPackage, word) { // a Logger, but not a Closer
				words = append(words, word)
			}
		}
	}

	return words
}

// split is the words of a name, in small letters.
func split(name string) (words []string) {
	begin, runes := 0, []rune(name)

	for i := 1; i <= len(runes); i++ {
		if i == len(runes) || unicode.IsUpper(runes[i]) && !unicode.IsUpper(runes[i-1]) || runes[i] == '_' {
			words = append(words, strings.ToLower(strings.Trim(string(runes[begin:i]), "_")))
			begin = i
		}
	}

	return words
}

func has(words, of []string) bool {
	return slices.ContainsFunc(words, func(word string) bool { return slices.Contains(of, word) })
}
