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
		if news := l.UseSearch(tt.use); news != tt.news || l.Search(Dialect{}, false) != tt.want {
			t.Errorf("form %d: %d, news %v", tt.use, l.Search(Dialect{}, false), news)
		}
	}
	if (&Learned{}).Search(Dialect{Avoids: SearchReturn}, false) != BySearch {
		t.Error("a form is used that the dialect avoids")
	}
	if l.Searches() {
		t.Error("SEARCH has been answered")
	}
	if l.HasSearched(BySearch); !l.Searches() {
		t.Error("SEARCH has not been answered")
	}
}

// I-SNAP-3: SEARCH among a set of UIDs is for servers that were tested, or
// where the operator says so, and only in the forms that are not known to be wrong.
func TestSearchOfSet(t *testing.T) {
	for _, tt := range []struct {
		greeting string
		search   Searching
		fails    Form
		want     Search
	}{
		{"OK IMAP4rev1", SearchAuto, 0, ByFetch},
		{"OK IMAP4rev1", SearchByReturn, 0, BySearchReturn},
		{"OK IMAP4rev1", SearchByPlain, 0, BySearch},
		{"OK IMAP4rev1", SearchByPlain, SearchPlain, ByFetch},
		{"OK Dovecot ready", SearchAuto, 0, BySearchReturn},
		{"OK Dovecot ready", SearchByPlain, 0, BySearch},
		{"OK Dovecot ready", SearchByFetch, 0, ByFetch},
		{"OK Dovecot ready", SearchAuto, SearchReturn, BySearch},
		{"OK Cyrus IMAP 3.6 ready", SearchAuto, 0, BySearchReturn},
		{"OK Courier-IMAP ready", SearchAuto, 0, BySearchReturn},
		{"OK Proton Mail Bridge - gluon session ID 1", SearchAuto, 0, BySearchReturn},
		{"OK Gimap ready", SearchAuto, 0, ByFetch},
	} {
		c := Defaults()
		c.Search = tt.search
		l := NewLearned(Facts{Fails: tt.fails})
		if got := l.Search(c.Dialect(tt.greeting, nil), true); got != tt.want {
			t.Errorf("%s, %s, without %v: form %d, want %d", tt.greeting, tt.search, tt.fails, got, tt.want)
		}
	}
}
