package dialect

import "testing"

// TestLearned: a form that is known to be wrong is not used again.
func TestLearned(t *testing.T) {
	var l Learned
	for _, tt := range []struct {
		use, want Search
		news      bool
	}{
		{SearchReturn, SearchReturn, false},
		{SearchPlain, SearchPlain, true},
		{SearchPlain, SearchPlain, false},
		{SearchFetch, SearchFetch, true},
		{SearchReturn, SearchFetch, false},
	} {
		if news := l.UseSearch(tt.use); news != tt.news || l.Search() != tt.want {
			t.Errorf("form %d: %d, news %v", tt.use, l.Search(), news)
		}
	}
	if l.Searches() {
		t.Error("SEARCH has been answered")
	}
	if l.HasSearched(); !l.Searches() {
		t.Error("SEARCH has not been answered")
	}
}
