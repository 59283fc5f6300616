package dialect

import "testing"

// TestSearch: a form that is known to be wrong is not used again.
func TestSearch(t *testing.T) {
	var l Learned
	for _, tt := range []struct {
		use, want Search
		news      bool
	}{
		{BySearchReturn, BySearchReturn, false},
		{BySearch, BySearch, true},
		{BySearch, BySearch, false},
		{ByFetch, ByFetch, true},
		{BySearchReturn, ByFetch, false},
	} {
		if news := l.UseSearch(tt.use); news != tt.news || l.Search(Dialect{}) != tt.want {
			t.Errorf("form %d: %d, news %v", tt.use, l.Search(Dialect{}), news)
		}
	}
	if (&Learned{}).Search(Dialect{Avoids: SearchReturn}) != BySearch {
		t.Error("a form is used that the dialect avoids")
	}
	if l.Searches() {
		t.Error("SEARCH has been answered")
	}
	if l.HasSearched(BySearch); !l.Searches() {
		t.Error("SEARCH has not been answered")
	}
}
