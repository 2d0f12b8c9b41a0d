package sluice_test

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// TestFewHandsWrite: a type with more methods than a reader keeps in mind, or with more
// that write, is a hall. In rollout a situation only reads, however many questions it
// answers, and what changes a state is one of the few methods of a turn.
func TestFewHandsWrite(t *testing.T) {
	methods, hands := map[string]int{}, map[string][]string{}
	for _, f := range sources(t) {
		if f.isTest() {
			continue
		}
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			of := f.dir() + "." + selectorPath(fn.Recv.List[0].Type)[0]
			methods[of]++
			fields := written(fn)
			if len(fields) > 0 {
				hands[of] = append(hands[of], fn.Name.Name)
			}
			for _, field := range fields {
				if of == "rollout.situation" && field != "memo" {
					t.Errorf("%s: situation.%s writes %s; only a turn writes", f.path, fn.Name.Name, field)
				}
			}
		}
	}
	for of, n := range methods {
		if n > 60 {
			t.Errorf("%s has %d methods; more than 60 are a hall", of, n)
		}
		if n := len(hands[of]); n > 15 {
			t.Errorf("%s has %d methods that write, %s; more than 15 hands are too many", of, n, strings.Join(hands[of], ", "))
		}
	}
	if methods["rollout.situation"] == 0 {
		t.Error("rollout has no situation, so nothing here says that it only reads")
	}
	if n := methods["rollout.turn"]; n == 0 || n > 15 {
		t.Errorf("turn has %d methods; more than 15 hands are too many", n)
	}
}

// written lists the fields of its receiver that a method writes itself, not by a call of
// another; "all of it" stands for the whole.
func written(fn *ast.FuncDecl) []string {
	receiver := fn.Recv.List[0]
	if _, pointer := receiver.Type.(*ast.StarExpr); !pointer || len(receiver.Names) == 0 {
		return nil
	}
	var fields []string
	for n := range ast.Preorder(fn.Body) {
		var targets []ast.Expr
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				targets = n.Lhs
			}
		case *ast.IncDecStmt:
			targets = []ast.Expr{n.X}
		case *ast.CallExpr:
			if called, ok := n.Fun.(*ast.Ident); ok && called.Name == "delete" {
				targets = n.Args[:1]
			}
		}
		for _, target := range targets {
			path := selectorPath(target)
			_, local := target.(*ast.Ident)
			switch {
			case local || len(path) == 0 || path[0] != receiver.Names[0].Name:
			case len(path) == 1:
				fields = append(fields, "all of it")
			default:
				fields = append(fields, path[1])
			}
		}
	}
	return fields
}

// selectorPath is x, y, z for the expression x.y[i].z.
func selectorPath(e ast.Expr) []string {
	switch e := e.(type) {
	case *ast.Ident:
		return []string{e.Name}
	case *ast.SelectorExpr:
		return append(selectorPath(e.X), e.Sel.Name)
	case *ast.IndexExpr:
		return selectorPath(e.X)
	case *ast.IndexListExpr:
		return selectorPath(e.X)
	case *ast.StarExpr:
		return selectorPath(e.X)
	case *ast.ParenExpr:
		return selectorPath(e.X)
	}
	return nil
}
