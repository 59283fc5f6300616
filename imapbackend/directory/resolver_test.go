package directory

import (
	"errors"
	"sync"
	"testing"
)

// testResolver is what every Resolver must do. known has the Target of some names.
func testResolver(t *testing.T, r Resolver, known map[string]Target, unknown ...string) {
	t.Helper()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for name, want := range known {
				if got, err := r.Resolve(t.Context(), Login{Name: name}); err != nil || got != want {
					t.Errorf("%q: %v, %v, want %v", name, got, err, want)
				}
			}
			for _, name := range unknown {
				if got, err := r.Resolve(t.Context(), Login{Name: name}); !errors.Is(err, ErrUnknown) || got != (Target{}) {
					t.Errorf("%q: %v, %v, want %v", name, got, err, ErrUnknown)
				}
			}
		})
	}
	wg.Wait()
}

// Every Resolver passes the same tests (P-PASS-5).
func TestResolvers(t *testing.T) {
	routes, err := NewRoutes([]Route{
		{Match: "*@north.example", Upstream: "north"},
		{Match: "ann@south.example", Upstream: "north", User: "ann"},
		{Match: "*@south.example", Upstream: "south", User: "{local}"},
	})
	if err != nil {
		t.Fatal(err)
	}
	names := nameFile(t, "north.example\nann@south.example\n")
	files, err := NewRoutes([]Route{{Names: names, Upstream: "north"}})
	if err != nil {
		t.Fatal(err)
	}
	bob := map[string]Target{"bob@north.example": {Upstream: "north", User: "bob@north.example"}}
	t.Run("routes", func(t *testing.T) {
		testResolver(t, routes, map[string]Target{
			"bob@north.example": {Upstream: "north", User: "bob@north.example"},
			"ann@south.example": {Upstream: "north", User: "ann"},
			"bob@south.example": {Upstream: "south", User: "bob"},
		}, "bob", "north.example", "bob@east.example", "bob@north.example.evil.example", "")
	})
	t.Run("files", func(t *testing.T) { testResolver(t, files, bob, "bob", "bob@south.example", "bob@") })
	t.Run("only", func(t *testing.T) { testResolver(t, only("north"), bob) })
}
