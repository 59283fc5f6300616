package reload

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
	// quietTime is how long the directories of the files must not change before
	// the files are read, so that a new certificate and its new key are read
	// together.
	quietTime = 500 * time.Millisecond

	// maxDelay is when the files are read anyway: other files in the same
	// directories may change all the time.
	maxDelay = 5 * time.Second
)

// A Source is something that was read from files.
type Source interface {
	// Files returns the names of the files. They never change.
	Files() []string

	// Reload reads the files again and logs the result. After an error, what was
	// read before stays in use. It is safe for concurrent use.
	Reload(log *slog.Logger)
}

// Reloader keeps Sources up to date with their files.
type Reloader struct {
	sources []Source
	log     *slog.Logger
	watcher *fsnotify.Watcher // nil if there is nothing to watch, or no way
	watched map[string]bool   // directories
}

// New returns the Reloader of sources. It does nothing before Start.
func New(sources []Source, log *slog.Logger) *Reloader {
	r := &Reloader{sources: sources, log: log, watched: make(map[string]bool)}
	if len(sources) == 0 {
		return r
	}
	var err error
	if r.watcher, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("files are not watched, send SIGHUP after a change", "error", err)
	}
	return r
}

// Start watches the files until the returned function is called. The caller
// calls it once.
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
		_ = r.watcher.Close() // nobody reads its events any more
	}
}

// run reloads after changes.
func (r *Reloader) run(ctx context.Context) {
	quiet := time.NewTimer(quietTime)
	quiet.Stop()
	var since time.Time // of the first change not read yet
	changed := func() {
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		quiet.Reset(min(quietTime, max(since.Add(maxDelay).Sub(now), 0)))
	}
	for {
		select {
		case <-ctx.Done():
			quiet.Stop()
			return
		case <-r.watcher.Events:
			changed()
		case err := <-r.watcher.Errors: // such as lost events
			r.log.Warn("watching files failed, reading them again", "error", err)
			changed()
		case <-quiet.C:
			since = time.Time{}
			r.watch() // before the reload, to miss no change: links may point elsewhere now
			r.Reload()
		}
	}
}

// Reload reads all files again. It is safe for concurrent use.
func (r *Reloader) Reload() {
	for _, s := range r.sources {
		s.Reload(r.log)
	}
}

// watch watches the directories that the files now depend on, and no others.
func (r *Reloader) watch() {
	wanted := make(map[string]bool)
	for _, s := range r.sources {
		for _, file := range s.Files() {
			for _, dir := range directories(file) {
				wanted[dir] = true
			}
		}
	}
	for dir := range r.watched {
		if !wanted[dir] {
			_ = r.watcher.Remove(dir) // fails if the directory is gone
		}
	}
	for dir := range wanted {
		if err := r.watcher.Add(dir); err != nil {
			r.log.Warn("directory is not watched, send SIGHUP after a change", "directory", dir, "error", err)
		}
	}
	r.watched = wanted
}

// directories returns the directories in which a change may replace file: its
// own, and those of the symbolic links in its path. A file may be replaced by a new
// link to a file, or to a directory as Kubernetes does it.
func directories(file string) []string {
	const maxLinks = 40 // as in the Linux kernel
	path, err := filepath.Abs(file)
	if err != nil {
		return nil
	}
	var dirs []string
	for range maxLinks {
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

// firstLink returns the shortest prefix of path that is a symbolic link, "" if
// there is none.
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
