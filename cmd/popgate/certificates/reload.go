package certificates

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the directories of certificates must be quiet before
	// they are read, so that a certificate and its key are read together.
	settle = 500 * time.Millisecond

	// latest is how long that is waited for, as other files may change there
	// all the time.
	latest = 5 * time.Second
)

// Reloader keeps pairs up to date with their files.
type Reloader struct {
	pairs   []*Pair
	log     *slog.Logger
	watcher *fsnotify.Watcher // nil where the system has none to give
	watched map[string]bool   // directories
}

// NewReloader returns the Reloader of pairs. It does nothing before Start.
func NewReloader(pairs []*Pair, log *slog.Logger) *Reloader {
	r := &Reloader{pairs: pairs, log: log, watched: make(map[string]bool)}
	if len(pairs) == 0 {
		return r
	}
	var err error
	if r.watcher, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("certificates are not watched, send SIGHUP after a change", "error", err)
	}
	return r
}

// Start watches the files until the returned function is called, which is to be
// done once.
func (r *Reloader) Start() (stop func()) {
	if r.watcher == nil {
		return func() {}
	}
	r.watch()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx) })
	return func() {
		cancel()
		wg.Wait()
		_ = r.watcher.Close() // nothing is left to be read
	}
}

// run reloads when something has changed and it has become quiet.
func (r *Reloader) run(ctx context.Context) {
	quiet := time.NewTimer(settle)
	quiet.Stop()
	var since time.Time // of the first change not read yet
	changed := func() {
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		quiet.Reset(min(settle, max(since.Add(latest).Sub(now), 0)))
	}
	for {
		select {
		case <-ctx.Done():
			quiet.Stop()
			return
		case <-r.watcher.Events:
			changed()
		case err := <-r.watcher.Errors: // such as lost events
			r.log.Warn("watching certificates", "error", err)
			changed()
		case <-quiet.C:
			since = time.Time{}
			r.watch() // first, to miss nothing: links may point elsewhere now
			r.Reload()
		}
	}
}

// Reload reads all files again. It is safe for concurrent use.
func (r *Reloader) Reload() {
	for _, p := range r.pairs {
		p.reload(r.log)
	}
}

// watch watches the directories that the files now depend on, and no others.
func (r *Reloader) watch() {
	wanted := make(map[string]bool)
	for _, p := range r.pairs {
		for _, file := range []string{p.certFile, p.keyFile} {
			for _, dir := range directories(file) {
				wanted[dir] = true
			}
		}
	}
	for dir := range r.watched {
		if !wanted[dir] {
			_ = r.watcher.Remove(dir) // fails where the directory is gone
		}
	}
	for dir := range wanted {
		if err := r.watcher.Add(dir); err != nil {
			r.log.Warn("directory is not watched, send SIGHUP after a change", "directory", dir, "error", err)
		}
	}
	r.watched = wanted
}

// directories returns the directories in which a change may change file: its
// own, and those of the symbolic links on the way. Certificates are replaced
// by new links to files, or to directories as Kubernetes does.
func directories(file string) []string {
	const mostLinks = 40 // as in the kernel
	path, err := filepath.Abs(file)
	if err != nil {
		return nil
	}
	var dirs []string
	for range mostLinks {
		link := firstLink(path)
		if link == "" {
			break
		}
		dirs = append(dirs, filepath.Dir(link))
		target, err := os.Readlink(link)
		if err != nil {
			return dirs
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		path = filepath.Join(target, path[len(link):])
	}
	return append(dirs, filepath.Dir(path))
}

// firstLink returns the shortest part of path, from its start, that is a
// symbolic link; "" if there is none.
func firstLink(path string) string {
	for i := len(filepath.VolumeName(path)) + 1; i <= len(path); i++ {
		if i < len(path) && !os.IsPathSeparator(path[i]) {
			continue
		}
		if fi, err := os.Lstat(path[:i]); err == nil && fi.Mode()&os.ModeSymlink != 0 {
			return path[:i]
		}
	}
	return ""
}
