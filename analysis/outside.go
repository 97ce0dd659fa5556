package analysis

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"

	"golang.org/x/tools/go/types/typeutil"
)

// outerContexts is the contexts that a function under a lock has no business with: the one that was given to the
// method, and those that it was made from. stack is the nodes around the call, from the inside out.
func outerContexts(info *types.Info, call *ast.CallExpr, stack []ast.Node) objects {
	outer := objects{}

	id, ok := ast.Unparen(call.Args[0]).(*ast.Ident)
	if !ok {
		return outer
	}

	outer.add(info, id)

	for _, n := range stack {
		if paramsOf(n) == nil {
			continue
		}

		// What it was made from has been written before.
		for changed := true; changed; {
			changed = false

			assignments(n, func(left, right []ast.Expr) {
				if right[0].Pos() > call.Pos() || !slices.ContainsFunc(left, func(e ast.Expr) bool { return outer.has(info, e) }) {
					return
				}

				for _, made := range contextsIn(info, right) {
					changed = outer.add(info, made) || changed
				}
			})
		}
	}

	return outer
}

// objects are variables.
type objects map[types.Object]bool

// add adds the variable that an identifier means. It is false if there is none, or was there before.
func (o objects) add(info *types.Info, id *ast.Ident) bool {
	obj := info.ObjectOf(id)
	if obj == nil || o[obj] {
		return false
	}

	o[obj] = true

	return true
}

// has reports whether an expression is one of the variables.
func (o objects) has(info *types.Info, e ast.Expr) bool {
	id, ok := ast.Unparen(e).(*ast.Ident)

	return ok && o[info.ObjectOf(id)]
}

// in reports whether a node mentions one of the variables.
func (o objects) in(info *types.Info, n ast.Node) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && o[info.ObjectOf(id)]

		return !found
	})

	return found
}

// assignments calls f with both sides of each assignment in a node: the same number of expressions, or one on the
// right.
func assignments(n ast.Node, f func(left, right []ast.Expr)) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			f(n.Lhs, n.Rhs)
		case *ast.ValueSpec:
			if len(n.Values) > 0 {
				left := make([]ast.Expr, len(n.Names))
				for i, name := range n.Names {
					left[i] = name
				}

				f(left, n.Values)
			}
		case *ast.RangeStmt:
			left := slices.DeleteFunc([]ast.Expr{n.Key, n.Value}, func(e ast.Expr) bool { return e == nil })
			f(left, []ast.Expr{n.X})
		}

		return true
	})
}

// contextsIn is the variables of type context.Context that calls among some expressions are given.
func contextsIn(info *types.Info, exprs []ast.Expr) (found []*ast.Ident) {
	for _, e := range exprs {
		call, ok := ast.Unparen(e).(*ast.CallExpr)
		if !ok {
			continue
		}

		for _, arg := range call.Args {
			if id, ok := ast.Unparen(arg).(*ast.Ident); ok && isContext(info.TypeOf(id)) {
				found = append(found, id)
			}
		}
	}

	return found
}

// outside looks for outer contexts in a function under a lock.
type outside struct {
	under
	fn *ast.FuncLit
	// inner is what may end with the lock, or tell its end: the function's parameters, and what was made from them.
	inner objects
}

// outside reports the calls in fn that are given one of the outer contexts, or one made from it. It tells whether there are any.
func (u under) outside(fn *ast.FuncLit) (found bool) {
	o := &outside{under: u, fn: fn, inner: objects{}}
	o.findInner()

	if o.watches() {
		return false
	}

	o.findOuter()

	ast.PreorderStack(fn.Body, []ast.Node{fn}, func(n ast.Node, stack []ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || o.mayPass(call) || o.makesContext(call) || o.knowsEnd(call) {
			return true
		}

		for _, arg := range call.Args {
			name, direct := o.outerIn(arg)
			if name == nil || o.excused(call, stack) {
				continue
			}

			found = true
			is := " is"

			if !direct {
				is = " is made from one that is"
			}

			u.pass.Reportf(arg.Pos(), "%s%s from outside of %s's function: it doesn't end when the lock is lost; "+
				"use the function's own context", name.Name, is, u.method)
		}

		return true
	})

	return found
}

// findInner fills inner. A variable that is assigned something of that isn't an outer context any more.
func (o *outside) findInner() {
	info := o.pass.TypesInfo

	for _, field := range o.fn.Type.Params.List {
		for _, name := range field.Names {
			o.inner.add(info, name)
		}
	}

	for changed := true; changed; {
		changed = false

		assignments(o.fn.Body, func(left, right []ast.Expr) {
			for i, e := range left {
				from := right[min(i, len(right)-1)]

				id := rootOf(e)
				if id == nil || !o.inner.in(info, from) {
					continue
				}

				if canTell(info.TypeOf(id), 4) {
					changed = o.inner.add(info, id) || changed
				}
			}
		})
	}
}

// canTell reports whether a value of a type may know a context: a number, a text and what has but these don't.
func canTell(t types.Type, depth int) bool {
	if t == nil || depth == 0 {
		return false
	}

	switch t := t.Underlying().(type) {
	case *types.Interface, *types.Signature, *types.Chan:
		return true
	case *types.Pointer:
		return canTell(t.Elem(), depth)
	case *types.Slice:
		return canTell(t.Elem(), depth)
	case *types.Array:
		return canTell(t.Elem(), depth)
	case *types.Map:
		return canTell(t.Elem(), depth)
	case *types.Struct:
		for field := range t.Fields() {
			if canTell(field.Type(), depth-1) {
				return true
			}
		}
	}

	return false
}

// rootOf is the variable that an expression is, or is a part of: a of a.b[c]. It is nil if there is none.
func rootOf(e ast.Expr) *ast.Ident {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		return e
	case *ast.SelectorExpr:
		return rootOf(e.X)
	case *ast.IndexExpr:
		return rootOf(e.X)
	case *ast.StarExpr:
		return rootOf(e.X)
	}

	return nil
}

// watches reports whether the function has somebody else watch its context, who may end the work another way.
func (o *outside) watches() (watches bool) {
	info := o.pass.TypesInfo

	ast.PreorderStack(o.fn.Body, nil, func(n ast.Node, stack []ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}

		if fn, ok := typeutil.Callee(info, call).(*types.Func); ok && fn.FullName() == "context.AfterFunc" {
			watches = watches || o.inner.in(info, call.Args[0])
		}

		if isContextMethod(info, call, "Done") && o.inner.in(info, call.Fun) {
			parent, _ := stack[len(stack)-1].(*ast.UnaryExpr)
			inClosure := slices.ContainsFunc(stack, func(n ast.Node) bool { _, ok := n.(*ast.FuncLit); return ok })
			watches = watches || inClosure || parent == nil || parent.Op != token.ARROW
		}

		return true
	})

	return watches
}

// findOuter leaves out what the function assigns, and adds the contexts that it makes from outer ones.
func (o *outside) findOuter() {
	info := o.pass.TypesInfo

	assignments(o.fn.Body, func(left, _ []ast.Expr) {
		for _, e := range left {
			if o.outer.has(info, e) {
				delete(o.outer, info.ObjectOf(e.(*ast.Ident)))
			}
		}
	})

	for changed := true; changed; {
		changed = false

		assignments(o.fn.Body, func(left, right []ast.Expr) {
			call, ok := ast.Unparen(right[0]).(*ast.CallExpr)
			if !ok || len(right) != 1 || !o.makesContext(call) || o.knowsEnd(call) {
				return
			}

			if name, _ := o.outerIn(call); name == nil || o.endsAnotherWay(left) {
				return
			}

			for _, e := range left {
				if id, ok := e.(*ast.Ident); ok && isContext(info.TypeOf(id)) {
					changed = o.outer.add(info, id) || changed
				}
			}
		})
	}
}

// endsAnotherWay reports whether what was made beside a context, its cancel function or its group, may end it when the
// lock is lost: it is used in a closure, passed on, or beside something of the lock's.
func (o *outside) endsAnotherWay(left []ast.Expr) (may bool) {
	info := o.pass.TypesInfo
	beside := objects{}

	for _, e := range left {
		if id, ok := e.(*ast.Ident); ok && !isContext(info.TypeOf(id)) && !isError(info.TypeOf(id)) {
			beside.add(info, id)
		}
	}

	ast.PreorderStack(o.fn.Body, nil, func(n ast.Node, stack []ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok || !beside[info.Uses[id]] {
			return true
		}

		inStatement := true

		for i := len(stack) - 1; i >= 0 && !may; i-- {
			switch n := stack[i].(type) {
			case *ast.FuncLit:
				may = true
			case *ast.CallExpr:
				may = n.Fun != id && rootOf(n.Fun) != id // passed on
				may = may || inStatement && o.inner.in(info, n)
			case ast.Stmt:
				inStatement = false
			}
		}

		return true
	})

	return may
}

// makesContext reports whether a call returns a context, which is what is to be followed.
func (o *outside) makesContext(call *ast.CallExpr) bool {
	switch t := o.pass.TypesInfo.TypeOf(call).(type) {
	case *types.Tuple:
		for v := range t.Variables() {
			if isContext(v.Type()) {
				return true
			}
		}
	case nil:
	default:
		return isContext(t)
	}

	return false
}

// outerIn is the outer context that an expression is (direct), or is made from by a call. It is nil if there is none.
func (o *outside) outerIn(e ast.Expr) (name *ast.Ident, direct bool) {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		if obj := o.pass.TypesInfo.ObjectOf(e); o.outer[obj] {
			inFn := o.fn.Pos() <= obj.Pos() && obj.Pos() < o.fn.End()

			return e, !inFn
		}
	case *ast.CallExpr:
		if !o.makesContext(e) || o.mayPass(e) || o.knowsEnd(e) {
			return nil, false
		}

		for _, arg := range e.Args {
			if name, _ := o.outerIn(arg); name != nil {
				return name, false
			}
		}
	}

	return nil, false
}

// knowsEnd reports whether a call is given what may tell it the end of the lock, too, or is a method of that.
func (o *outside) knowsEnd(call *ast.CallExpr) (knows bool) {
	info := o.pass.TypesInfo

	ast.Inspect(call, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		knows = knows || ok && (o.inner[info.ObjectOf(id)] || isLock(info.TypeOf(id)))

		return !knows
	})

	return knows
}

// excused reports whether a call may be meant to go on without the lock, by what is around it.
func (o *outside) excused(call *ast.CallExpr, stack []ast.Node) bool {
	var child ast.Node = call

	for i := len(stack) - 1; i > 0; i-- {
		switch n := stack[i].(type) {
		case *ast.DeferStmt, *ast.GoStmt:
			return true
		case *ast.FuncLit:
			by, ok := stack[i-1].(*ast.CallExpr)
			if !ok || by.Fun != n && o.runsLater(by) {
				return true
			}
		case *ast.IfStmt:
			if child != n.Cond && child != n.Init && (o.tellsEnd(n.Cond) || n.Init != nil && o.tellsEnd(n.Init)) {
				return true
			}
		case *ast.SwitchStmt:
			if child == n.Body && n.Tag != nil && o.tellsEnd(n.Tag) {
				return true
			}
		case *ast.CaseClause:
			if slices.ContainsFunc(n.List, func(e ast.Expr) bool { return e != child && o.tellsEnd(e) }) || o.afterEnd(n.Body, child) {
				return true
			}
		case *ast.CommClause:
			if n.Comm != nil && n.Comm != child && seesEnd(o.pass.TypesInfo, n.Comm) || o.afterEnd(n.Body, child) {
				return true
			}
		case *ast.BlockStmt:
			if o.afterEnd(n.List, child) {
				return true
			}
		}

		child = stack[i]
	}

	return false
}

// runsLater reports whether a call keeps a function that it is given for the time after the work, or runs it under
// another lock's context, which is looked at elsewhere.
func (o *outside) runsLater(call *ast.CallExpr) bool {
	if method, _ := runner(o.pass.TypesInfo, call); method != nil {
		return true
	}

	fn, ok := typeutil.Callee(o.pass.TypesInfo, call).(*types.Func)
	if !ok || fn.Pkg() != nil && fn.Pkg().Path() == "sync" { // sync.OnceFunc
		return true
	}

	words := wordsOf(fn)

	return has(words, cleaning) || has(words, []string{"after", "defer", "handle", "on", "register"})
}

// tellsEnd reports whether a node has an error in it, as one that tells of a loss.
func (o *outside) tellsEnd(n ast.Node) (tells bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		if ok && isError(o.pass.TypesInfo.TypeOf(e)) {
			// The call whose error it is comes before it.
			_, isCall := e.(*ast.CallExpr)
			tells = tells || !isCall || saysEnd(o.pass.TypesInfo, e)
		}

		return !tells
	})

	return tells
}

// afterEnd reports whether a statement comes after one that waits for the end of a context.
func (o *outside) afterEnd(list []ast.Stmt, stmt ast.Node) bool {
	for _, before := range list {
		if before == stmt {
			return false
		}

		switch n := before.(type) {
		case *ast.ExprStmt, *ast.AssignStmt:
			if seesEnd(o.pass.TypesInfo, n) {
				return true
			}
		case *ast.ForStmt:
			if n.Cond != nil && o.tellsEnd(n.Cond) {
				return true
			}
		case *ast.SelectStmt:
			if slices.ContainsFunc(n.Body.List, o.goesOnAfterEnd) {
				return true
			}
		}
	}

	return false
}

// goesOnAfterEnd reports whether a clause of a select waits for the end of a context, and doesn't return then.
func (o *outside) goesOnAfterEnd(clause ast.Stmt) bool {
	comm := clause.(*ast.CommClause)
	if comm.Comm == nil || !seesEnd(o.pass.TypesInfo, comm.Comm) {
		return false
	}

	if len(comm.Body) == 0 {
		return true
	}

	_, returns := comm.Body[len(comm.Body)-1].(*ast.ReturnStmt)

	return !returns
}
