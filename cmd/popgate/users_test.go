package main

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// testPackages exist for tests, which are their users. The server of the demo
// is an upstream of tests too.
var testPackages = []string{
	"popgate/cmd/popgate/processtest",
	"popgate/proxy/proxytest",
	"popgate/proxy/lock/locktest",
	"popgate/imapbackend/demo",
	"popgate/imapbackend/dovecottest",
	"popgate/imapbackend/servertest",
	"popgate/imapbackend/imapmodel",
	"popgate/imapbackend/internal/imapfault",
	"popgate/imapbackend/internal/imapscript",
}

// interfaces are files whose names are there for others to implement or to set:
// what an Observer is informed of, what a Backend is asked with, and the values
// of an option.
var interfaces = []string{
	"proxy/observer.go",
	"proxy/record.go",
	"proxy/backend.go",
	"imapbackend/options.go",
}

func isInterface(file string) bool {
	return slices.ContainsFunc(interfaces, func(f string) bool { return strings.HasSuffix(file, f) })
}

func isTestPackage(path string) bool {
	return slices.ContainsFunc(testPackages, func(p string) bool { return strings.HasPrefix(path, p) })
}

// TestNamesHaveUsers finds functions, methods, types, constants, variables and
// fields without a user: what production code declares must be used by
// production code, and what the packages for tests declare by anything; what
// interfaces declare, at least by tests. A field that is only written has no
// user. A method has one if some interface has a method of its name.
func TestNamesHaveUsers(t *testing.T) {
	pkgs := loadModule(t)
	u := users{
		files: pkgs[0].Fset, // shared by all of them
		used:  make(map[token.Position]bool),
		asked: map[string]bool{"Is": true, "As": true, "Unwrap": true}, // by package errors
	}
	for _, pkg := range pkgs {
		u.collect(pkg)
	}
	packages.Visit(pkgs, nil, u.collectInterfaces)
	var unused []string
	for _, pkg := range pkgs {
		for id, obj := range pkg.TypesInfo.Defs {
			pos := u.files.Position(id.Pos())
			if obj != nil && !strings.HasSuffix(pos.Filename, "_test.go") && needsUser(obj) && !u.has(obj) {
				unused = append(unused, pos.String()+": "+obj.Name())
			}
		}
	}
	slices.Sort(unused)
	for _, name := range slices.Compact(unused) {
		t.Errorf("%s has no user", name)
	}
}

func loadModule(t *testing.T) []*packages.Package {
	t.Helper()
	pkgs, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax |
			packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports,
		Dir:        "../..",
		Tests:      true,
		BuildFlags: []string{"-tags=integration"},
	}, "./...")
	if err != nil {
		t.Fatal(err)
	}
	if packages.PrintErrors(pkgs) > 0 {
		t.Fatal("the module does not load")
	}
	return pkgs
}

// users is what is used, by where it is declared: a package that is loaded
// twice, with and without its tests, has two objects for each name.
type users struct {
	files *token.FileSet
	used  map[token.Position]bool
	asked map[string]bool // methods of interfaces, by name
}

func (u *users) has(obj types.Object) bool {
	if f, ok := obj.(*types.Func); ok && f.Signature().Recv() != nil && u.asked[f.Name()] {
		return true
	}
	return u.used[u.files.Position(obj.Pos())]
}

// collect notes what the files of a package use.
func (u *users) collect(pkg *packages.Package) {
	for _, f := range pkg.Syntax {
		byTest := isTestPackage(pkg.PkgPath) || strings.HasSuffix(u.files.Position(f.Pos()).Filename, "_test.go")
		written := make(map[*ast.Ident]bool)
		ast.Inspect(f, func(n ast.Node) bool {
			u.collectWrites(n, pkg.TypesInfo, written)
			id, ok := n.(*ast.Ident)
			if !ok || written[id] {
				return true
			}
			obj := pkg.TypesInfo.Uses[id]
			if obj == nil || obj.Pkg() == nil {
				return true
			}
			declared := u.files.Position(origin(obj).Pos())
			if !byTest || isTestPackage(obj.Pkg().Path()) || isInterface(declared.Filename) {
				u.used[declared] = true
			}
			return true
		})
	}
}

// collectWrites notes the names of fields that n only sets. The fields of a
// literal without keys count as used, as do those with a tag.
func (u *users) collectWrites(n ast.Node, info *types.Info, written map[*ast.Ident]bool) {
	switch n := n.(type) {
	case *ast.AssignStmt:
		for _, left := range n.Lhs {
			if sel, ok := left.(*ast.SelectorExpr); ok {
				written[sel.Sel] = true
			}
		}
	case *ast.IncDecStmt:
		if sel, ok := n.X.(*ast.SelectorExpr); ok {
			written[sel.Sel] = true
		}
	case *ast.StructType:
		for _, f := range n.Fields.List {
			if f.Tag != nil { // what reads the tag uses the field
				for _, name := range f.Names {
					u.used[u.files.Position(name.Pos())] = true
				}
			}
		}
	case *ast.CompositeLit:
		s, ok := info.TypeOf(n).Underlying().(*types.Struct)
		if !ok {
			return
		}
		for i, elt := range n.Elts {
			if kv, ok := elt.(*ast.KeyValueExpr); !ok {
				u.used[u.files.Position(s.Field(i).Pos())] = true
			} else if id, ok := kv.Key.(*ast.Ident); ok {
				written[id] = true
			}
		}
	}
}

func (u *users) collectInterfaces(pkg *packages.Package) {
	if pkg.Types == nil {
		return
	}
	for _, name := range pkg.Types.Scope().Names() {
		if i, ok := pkg.Types.Scope().Lookup(name).Type().Underlying().(*types.Interface); ok {
			for m := range i.Methods() {
				u.asked[m.Name()] = true
			}
		}
	}
}

// needsUser reports whether obj is a field, a method, or declared in a package.
func needsUser(obj types.Object) bool {
	switch o := obj.(type) {
	case *types.Var:
		if o.IsField() {
			return !o.Embedded() && o.Name() != "_"
		}
	case *types.Func:
		return o.Name() != "init" && o.Name() != "main" && o.Name() != "_"
	case *types.Const, *types.TypeName:
	default:
		return false
	}
	return obj.Name() != "_" && obj.Parent() == obj.Pkg().Scope()
}

// origin returns the generic function or field that obj is an instance of.
func origin(obj types.Object) types.Object {
	switch o := obj.(type) {
	case *types.Func:
		return o.Origin()
	case *types.Var:
		return o.Origin()
	}
	return obj
}
