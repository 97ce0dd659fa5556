package analysis

import (
	"go/ast"
	"go/types"
	"slices"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/ctrlflow"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/cfg"
	"golang.org/x/tools/go/types/typeutil"
)

// Unlock reports locks that a path through the function leaves locked.
var Unlock = &analysis.Analyzer{
	Name: "pglockerunlock",
	Doc: `report locks that aren't unlocked on every path

A lock is renewed until Unlock, until the Locker is closed or until the process ends. A path that leaves the function
without Unlock keeps the lock from all others. Best defer Unlock right after the error was looked at.

What is checked is a variable that holds the result of Lock, TryLock, LockAll, Acquire, RLock, Downgrade or a relative.
It must stay in the function: a lock that is stored, returned, passed on or captured by a closure is unlocked
elsewhere. So is one whose context is stored, returned or sent, or is given to a function that calls FromContext, or that
isn't known. Nothing is reported where the lock wasn't granted or is over: after an error of the call, and after the end
of a context. A function that closes a Locker may leave its locks to it.`,
	URL:      "https://pkg.go.dev/github.com/ismurov/pglocker/analysis",
	Requires: []*analysis.Analyzer{inspect.Analyzer, ctrlflow.Analyzer},
	Run:      runUnlock,
	// Functions of other packages may unlock, too.
	FactTypes: []analysis.Fact{new(releases)},
}

func runUnlock(pass *analysis.Pass) (any, error) {
	findReleases(pass)

	graphs := pass.ResultOf[ctrlflow.Analyzer].(*ctrlflow.CFGs)

	functions := []ast.Node{(*ast.FuncDecl)(nil), (*ast.FuncLit)(nil)}
	for cursor := range pass.ResultOf[inspect.Analyzer].(*inspector.Inspector).Root().Preorder(functions...) {
		var (
			graph *cfg.CFG
			body  *ast.BlockStmt
		)

		switch fn := cursor.Node().(type) {
		case *ast.FuncDecl:
			graph, body = graphs.FuncDecl(fn), fn.Body
		case *ast.FuncLit:
			graph, body = graphs.FuncLit(fn), fn.Body
		}

		var stack []ast.Node
		for c := range cursor.Enclosing() {
			stack = append(stack, c.Node())
		}

		if graph == nil || inTest(pass, stack) || closesLocker(pass.TypesInfo, stack) {
			continue
		}

		for _, block := range graph.Blocks {
			for i, node := range block.Nodes {
				t := take(pass.TypesInfo, body, node)
				if t != nil && !t.escapes(pass, body) && !closedBeside(t.info, t.call, stack) {
					t.check(pass, block, i)
				}
			}
		}
	}

	return nil, nil
}

// closesLocker reports whether a function, or one around it, closes a Locker, which unlocks everything.
func closesLocker(info *types.Info, stack []ast.Node) bool {
	return slices.ContainsFunc(stack, func(n ast.Node) (closes bool) {
		if paramsOf(n) == nil {
			return false
		}

		ast.Inspect(n, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				fn := typeutil.StaticCallee(info, call)
				closes = closes || fn != nil && ofLibrary(fn) && fn.Name() == "Close"
			}

			return !closes
		})

		return closes
	})
}

// taken is a lock that a variable of the function holds.
type taken struct {
	info *types.Info
	call *ast.CallExpr
	name *ast.Ident
	// lock and err are the variables. err is nil if the error isn't kept.
	lock, err types.Object
	seen      map[state]bool
}

// state is a place in the function, as the walk reaches it.
type state struct {
	block *cfg.Block
	knows
}

// knows is what the walk knows about the error of the call. changed: it was nil, and the variable has had another value
// since.
type knows struct{ granted, changed bool }

// take returns the lock that a statement takes, nil if it takes none, or if the lock may leave the function.
func take(info *types.Info, body *ast.BlockStmt, node ast.Node) *taken {
	assign, ok := node.(*ast.AssignStmt)
	if !ok || len(assign.Lhs) != 2 || len(assign.Rhs) != 1 {
		return nil
	}

	call, ok := ast.Unparen(assign.Rhs[0]).(*ast.CallExpr)
	if !ok || !takesLock(info, call) {
		return nil
	}

	name, _ := assign.Lhs[0].(*ast.Ident)
	err, _ := assign.Lhs[1].(*ast.Ident)

	if name == nil || err == nil {
		return nil
	}

	t := &taken{info: info, call: call, name: name, lock: info.ObjectOf(name), seen: map[state]bool{}}
	if err.Name != "_" {
		t.err = info.ObjectOf(err)
	}

	// A variable from outside, and a named result, outlive the function.
	if name.Name == "_" || t.lock == nil || t.lock.Pos() < body.Pos() || t.lock.Pos() > body.End() || t.captured(body) {
		return nil
	}

	return t
}

// takesLock reports whether call is that of a method of pglocker whose results are what Unlock releases, and an error.
func takesLock(info *types.Info, call *ast.CallExpr) bool {
	fn := typeutil.StaticCallee(info, call)
	if fn == nil || !ofLibrary(fn) || !fn.Exported() || fn.Signature().Recv() == nil {
		return false
	}

	results := fn.Signature().Results()
	if results.Len() != 2 || !isError(results.At(1).Type()) {
		return false
	}

	unlock, _, _ := types.LookupFieldOrMethod(results.At(0).Type(), true, fn.Pkg(), "Unlock")

	return unlock != nil
}

// captured reports whether a closure uses the lock or its error, or has their addresses taken: then the order of
// what is done to them can't be seen.
func (t *taken) captured(body *ast.BlockStmt) (captured bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			captured = captured || t.mentions(n, t.lock) || t.mentions(n, t.err)

			return false
		case *ast.UnaryExpr:
			id, ok := ast.Unparen(n.X).(*ast.Ident)
			captured = captured || ok && n.Op.String() == "&" && t.is(id)
		}

		return !captured
	})

	return captured
}

func (t *taken) is(id *ast.Ident) bool {
	obj := t.info.ObjectOf(id)

	return obj != nil && (obj == t.lock || obj == t.err)
}

func (t *taken) mentions(n ast.Node, obj types.Object) (found bool) {
	if obj == nil {
		return false
	}

	ast.Inspect(n, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && t.info.ObjectOf(id) == obj

		return !found
	})

	return found
}

// check reports the lock if a path from the statement that took it reaches a return without what may unlock it.
func (t *taken) check(pass *analysis.Pass, block *cfg.Block, index int) {
	leak := t.leak(block, index+1, knows{})
	if leak == nil {
		return
	}

	pass.Report(analysis.Diagnostic{
		Pos: t.name.Pos(), End: t.name.End(),
		Message: t.name.Name + " isn't unlocked on every path: defer its Unlock after the error was looked at",
		Related: []analysis.RelatedInformation{{Pos: leak.Pos(), Message: "this return may be reached without an Unlock"}},
	})
}

// leak walks on from a node of a block, and returns the return statement that is reached while the lock is held.
func (t *taken) leak(block *cfg.Block, from int, known knows) *ast.ReturnStmt {
	for _, node := range block.Nodes[from:] {
		switch {
		case t.mayUnlock(node) || seesEnd(t.info, node):
			return nil
		case known.granted:
			known.changed = known.changed || assigns(t.info, node, t.err)
		case t.err == nil || !t.mentions(node, t.err):
		case node == condition(block):
		case plainCall(node): // must(t, err), log.Print(err)
		default:
			return nil // what the program knows about the error can't be seen
		}

		if ret, ok := node.(*ast.ReturnStmt); ok {
			return ret
		}
	}

	for branch, next := range block.Succs {
		known := known

		if cond := condition(block); cond != nil {
			switch t.judge(cond, branch == 0, known) {
			case over:
				continue
			case granting:
				known.granted = true
			}
		}

		if s := (state{next, known}); !t.seen[s] {
			t.seen[s] = true

			if ret := t.leak(next, 0, known); ret != nil {
				return ret
			}
		}
	}

	return nil
}

// plainCall reports whether a node is a call whose result isn't used.
func plainCall(node ast.Node) bool {
	stmt, ok := node.(*ast.ExprStmt)
	if !ok {
		return false
	}

	_, ok = stmt.X.(*ast.CallExpr)

	return ok
}

// mayUnlock reports whether a node uses the lock for more than to read from it, or releases a lock by force.
func (t *taken) mayUnlock(node ast.Node) (may bool) {
	var reads []ast.Expr // where the lock is only read from

	ast.Inspect(node, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if fn := typeutil.StaticCallee(t.info, n); fn != nil && ofLibrary(fn) && fn.Name() == "ForceRelease" {
				may = true
			}

			selector, ok := n.Fun.(*ast.SelectorExpr)
			if ok && selector.Sel.Name != "Unlock" && selector.Sel.Name != "Downgrade" {
				reads = append(reads, selector.X)
			}
		case *ast.Ident:
			may = may || t.info.ObjectOf(n) == t.lock && !slices.Contains(reads, ast.Expr(n))
		}

		return !may
	})

	return may
}

// seesEnd reports whether a node waits until a context has ended, which may be the lock's.
func seesEnd(info *types.Info, node ast.Node) (sees bool) {
	ast.Inspect(node, func(n ast.Node) bool {
		if receive, ok := n.(*ast.UnaryExpr); ok && receive.Op.String() == "<-" {
			call, ok := ast.Unparen(receive.X).(*ast.CallExpr)
			sees = sees || ok && isContextMethod(info, call, "Done")
		}

		return !sees
	})

	return sees
}
