package config

import "popgate/imapbackend/store"

// Store is [store].
type Store struct {
	Path    string // "": in memory
	MaxSize int64  // octets
}

func defaultStore() Store { return Store{MaxSize: store.DefaultMaxSize} }

var storeKeys = keyTable[Store]{
	"path":     text(func(s *Store) *string { return &s.Path }, "/var/lib/popgate/store.db"),
	"max_size": size(func(s *Store) *int64 { return &s.MaxSize }, store.MinMaxSize, 1<<40, "256MiB"),
}

func checkStore(l *loader, c *Config) {
	if c.Store.Path != "" {
		c.Store.Path = l.absolute(c.Store.Path)
	} else if l.given("store.max_size") && !l.wrong("store.path") {
		l.fail("store.max_size", "has no effect without path", "set path too, or remove it")
	}
}
