package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
)

// mutant is one change of one file.
type mutant struct {
	file       string // as given
	line       int    // counted from 1
	start, end int    // octets of the file that are replaced
	old, new   string
}

// String returns the place and the change, in one line.
func (m mutant) String() string {
	if m.new == "" {
		return fmt.Sprintf("%s:%d: left out: %s", m.file, m.line, oneLine(m.old))
	}
	return fmt.Sprintf("%s:%d: %s → %s", m.file, m.line, oneLine(m.old), oneLine(m.new))
}

// oneLine returns the first line of a text, and dots for the others.
func oneLine(s string) string {
	first, _, more := strings.Cut(s, "\n")
	if more {
		return first + " ..."
	}
	return first
}

// apply returns src with the change.
func (m mutant) apply(src []byte) []byte {
	return slices.Concat(src[:m.start], []byte(m.new), src[m.end:])
}

// find returns the mutants of all files, in the order of the source.
func find(files []string) ([]mutant, error) {
	var all []mutant
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found, err := findIn(file, src)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// findIn returns the mutants of one file.
func findIn(file string, src []byte) ([]mutant, error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, src, 0)
	if err != nil {
		return nil, err
	}
	f := finder{file: file, src: src, fset: fset}
	ast.Inspect(tree, f.visit)
	slices.SortStableFunc(f.found, func(a, b mutant) int { return a.start - b.start })
	return f.found, nil
}

// finder collects the mutants of a file.
type finder struct {
	file  string
	src   []byte
	fset  *token.FileSet
	found []mutant
}

// add adds the mutant that replaces what is between two positions.
func (f *finder) add(from, to token.Pos, replacement string) {
	start, end := f.fset.Position(from).Offset, f.fset.Position(to).Offset
	f.found = append(f.found, mutant{
		file: f.file, line: f.fset.Position(from).Line,
		start: start, end: end, old: string(f.src[start:end]), new: replacement,
	})
}

func (f *finder) text(n ast.Node) string {
	return string(f.src[f.fset.Position(n.Pos()).Offset:f.fset.Position(n.End()).Offset])
}

// visit adds the mutants of one node. It reports whether those inside it follow.
func (f *finder) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok != token.IMPORT
	case *ast.Field, *ast.ArrayType:
		return false // types and tags
	case *ast.IfStmt:
		f.negate(n.Cond)
	case *ast.ForStmt:
		// Negated, it seldom says more than a changed bound.
	case *ast.CaseClause:
		f.caseClause(n)
	case *ast.BinaryExpr:
		f.binary(n)
	case *ast.BasicLit:
		if n.Kind == token.INT {
			f.number(n)
		}
	case *ast.Ident:
		switch n.Name {
		case "true":
			f.add(n.Pos(), n.End(), "false")
		case "false":
			f.add(n.Pos(), n.End(), "true")
		}
	case *ast.ExprStmt, *ast.IncDecStmt, *ast.DeferStmt:
		f.leaveOut(n)
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			f.leaveOut(n)
		}
	}
	return true
}

// negate negates a condition. A comparison of two values is negated by its own
// mutant.
func (f *finder) negate(cond ast.Expr) {
	if b, ok := cond.(*ast.BinaryExpr); ok && swapped[b.Op] != token.ILLEGAL {
		return
	}
	f.add(cond.Pos(), cond.End(), "!("+f.text(cond)+")")
}

// caseClause makes a case never apply.
func (f *finder) caseClause(c *ast.CaseClause) {
	if len(c.List) == 0 || len(c.Body) == 0 {
		return
	}
	for _, e := range c.List {
		if b, ok := e.(*ast.BinaryExpr); ok && b.Op != token.ADD {
			f.add(e.Pos(), e.End(), "("+f.text(e)+") && false")
		}
	}
}

// swapped has the operator that replaces another.
var swapped = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL,
	token.LSS: token.GEQ, token.GEQ: token.LSS,
	token.GTR: token.LEQ, token.LEQ: token.GTR,
}

// moved has the operator with the bound moved by one.
var moved = map[token.Token]token.Token{
	token.LSS: token.LEQ, token.LEQ: token.LSS,
	token.GTR: token.GEQ, token.GEQ: token.GTR,
	token.ADD: token.SUB, token.SUB: token.ADD,
}

// binary changes an operator, or leaves out one side of a logical one.
func (f *finder) binary(b *ast.BinaryExpr) {
	switch b.Op {
	case token.LAND, token.LOR:
		f.add(b.Pos(), b.End(), f.text(b.X))
		f.add(b.Pos(), b.End(), f.text(b.Y))
		return
	case token.ADD:
		if isText(b.X) || isText(b.Y) {
			return
		}
	}
	for _, table := range []map[token.Token]token.Token{swapped, moved} {
		if op, ok := table[b.Op]; ok {
			f.add(b.OpPos, b.OpPos+token.Pos(len(b.Op.String())), op.String())
		}
	}
}

// isText reports whether an expression shows that it is a string.
func isText(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return e.Kind == token.STRING
	case *ast.BinaryExpr:
		return isText(e.X) || isText(e.Y)
	}
	return false
}

// number replaces a number by its successor.
func (f *finder) number(lit *ast.BasicLit) {
	if n, err := strconv.ParseInt(lit.Value, 0, 32); err == nil {
		f.add(lit.Pos(), lit.End(), strconv.FormatInt(n+1, 10))
	}
}

// logs are the methods that write to the log: what they say is not tested line by
// line.
var logs = []string{"DebugContext", "InfoContext", "WarnContext", "ErrorContext", "Debug", "Info", "Warn", "Error", "Trace"}

// leaveOut leaves out a statement.
func (f *finder) leaveOut(n ast.Node) {
	if e, ok := n.(*ast.ExprStmt); ok {
		call, ok := e.X.(*ast.CallExpr)
		if !ok {
			return
		}
		switch fun := call.Fun.(type) {
		case *ast.SelectorExpr:
			if slices.Contains(logs, fun.Sel.Name) {
				return
			}
		case *ast.Ident:
			if fun.Name == "panic" {
				return // the function may not compile without it
			}
		}
	}
	if a, ok := n.(*ast.AssignStmt); ok && bytes.HasPrefix([]byte(f.text(a)), []byte("_ ")) {
		return
	}
	f.add(n.Pos(), n.End(), "")
}
