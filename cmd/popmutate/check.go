package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// settings are common to all mutants of a run.
type settings struct {
	also     []string // packages tested where a file's own tests notice nothing
	skip     string   // tests, as in go test -skip
	jobs     int
	slack    time.Duration // what tests may take beyond three times their usual time
	out      io.Writer     // survivors, and the summary
	progress io.Writer

	limits map[string]time.Duration // for the tests of each package, by its directory
}

// verdict is what the tests say of a mutant.
type verdict int

const (
	survived verdict = iota
	noticed
	overtime // a test ran for too long
	invalid  // it does not compile
)

var verdicts = [...]string{"survived", "noticed", "noticed by time", "not valid"}

// String returns the verdict in words.
func (v verdict) String() string { return verdicts[v] }

// runAll tests all mutants, and writes the survivors as they are found.
func (s *settings) runAll(ctx context.Context, all []mutant) error {
	work, err := os.MkdirTemp("", "popmutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := s.measure(ctx, work, all); err != nil {
		return err
	}
	var (
		mu     sync.Mutex
		done   int
		counts [len(verdicts)]int
		failed error
		wg     sync.WaitGroup
		next   = make(chan mutant)
	)
	for job := range max(s.jobs, 1) {
		dir := filepath.Join(work, fmt.Sprint(job))
		wg.Go(func() {
			for m := range next {
				v, by, err := s.check(ctx, dir, m)
				mu.Lock()
				if err != nil {
					failed = errors.Join(failed, fmt.Errorf("%v: %w", m, err))
				} else {
					counts[v]++
					done++
					fmt.Fprintf(s.progress, "%d/%d %v: %v %s\n", done, len(all), m, v, by)
					if v == survived {
						fmt.Fprintln(s.out, m)
					}
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range all {
		if ctx.Err() != nil {
			break
		}
		next <- m
	}
	close(next)
	wg.Wait()
	fmt.Fprintf(s.out, "%d survived, %d noticed, %d of them by time; %d do not compile\n",
		counts[survived], counts[noticed]+counts[overtime], counts[overtime], counts[invalid])
	return errors.Join(failed, ctx.Err())
}

// measure runs the tests of the unchanged code. They must pass, and how long they
// take limits those of the mutants.
func (s *settings) measure(ctx context.Context, work string, all []mutant) error {
	s.limits = make(map[string]time.Duration)
	for _, m := range all {
		for _, pkg := range s.packages(m) {
			if _, ok := s.limits[pkg]; ok {
				continue
			}
			began := time.Now()
			s.limits[pkg] = time.Hour
			dir := filepath.Join(work, "unchanged")
			v, by, err := s.test(ctx, dir, pkg, filepath.Join(dir, "none.json"), mutant{})
			if err == nil && v != survived {
				err = fmt.Errorf("the tests of the unchanged %s fail: %s", pkg, by)
			}
			if err != nil {
				return err
			}
			s.limits[pkg] = s.slack + 3*time.Since(began)
		}
	}
	return nil
}

// packages returns the directories of the packages whose tests are to notice m.
func (s *settings) packages(m mutant) []string {
	dirs := []string{filepath.Dir(m.file)}
	for _, dir := range s.also {
		if dir = filepath.Clean(dir); dir != dirs[0] {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// check tests one mutant in dir. by is the test that noticed it.
func (s *settings) check(ctx context.Context, dir string, m mutant) (v verdict, by string, err error) {
	overlay := filepath.Join(dir, "overlay.json")
	for _, pkg := range s.packages(m) {
		if v, by, err = s.test(ctx, dir, pkg, overlay, m); err != nil || v != survived {
			break
		}
	}
	return v, by, err
}

// test compiles the tests of pkg with a mutant, unless that is the zero one, and
// runs them up to the first failure.
func (s *settings) test(ctx context.Context, dir, pkg, overlay string, m mutant) (v verdict, by string, err error) {
	if err := writeOverlay(dir, overlay, m); err != nil {
		return 0, "", err
	}
	binary := filepath.Join(dir, "test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, ".")
	build.Dir = pkg
	if out, err := build.CombinedOutput(); err != nil {
		if ctx.Err() != nil || m.file == "" {
			return 0, "", fmt.Errorf("go test -c %s: %w\n%s", pkg, err, out)
		}
		return invalid, "", nil
	}
	limit, cancel := context.WithTimeout(ctx, s.limits[pkg])
	defer cancel()
	args := []string{"-test.failfast", "-test.timeout=0"}
	if s.skip != "" {
		args = append(args, "-test.skip="+s.skip)
	}
	cmd := exec.CommandContext(limit, binary, args...)
	cmd.Dir, cmd.WaitDelay = pkg, time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	switch {
	case err == nil:
		return survived, "", nil
	case ctx.Err() != nil:
		return 0, "", ctx.Err()
	case limit.Err() != nil:
		return overtime, "", nil
	}
	if _, failed := errors.AsType[*exec.ExitError](err); !failed {
		return 0, "", err
	}
	return noticed, firstFailure(out.String()), nil
}

// writeOverlay writes the changed file, and the overlay that puts it in the place
// of the original.
func writeOverlay(dir, overlay string, m mutant) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	replace := map[string]string{}
	if m.file != "" {
		original, err := filepath.Abs(m.file)
		if err != nil {
			return err
		}
		src, err := os.ReadFile(original)
		if err != nil {
			return err
		}
		changed := filepath.Join(dir, "changed.go")
		if err := os.WriteFile(changed, m.apply(src), 0o644); err != nil {
			return err
		}
		replace[original] = changed
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	return os.WriteFile(overlay, data, 0o644)
}

// firstFailure returns the name of the test that failed, from the output of a
// test binary.
func firstFailure(out string) string {
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			name, _, _ = strings.Cut(name, " ")
			return name
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return strings.TrimSpace(line)
		}
	}
	return "(unknown)"
}
