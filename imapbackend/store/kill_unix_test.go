//go:build unix

package store

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes the test binary a process that uses a store: "kill PATH" or
// "full PATH".
const childEnv = "POPGATE_STORE_CHILD"

func TestMain(m *testing.M) {
	mode, path, _ := strings.Cut(os.Getenv(childEnv), " ")
	switch mode {
	case "kill":
		writeForEver(path)
	case "full":
		writeOnFullDisk(path)
	default:
		goleak.VerifyTestMain(m)
	}
}

func child(t *testing.T, mode, path string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+mode+" "+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// writeForEver changes the unique-ids and other records of one mailbox after
// another, and prints each number that is acknowledged.
func writeForEver(path string) {
	s, err := Open(path, Options{MaxSize: MinMaxSize})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	first, _ := strconv.Atoi(os.Getenv("POPGATE_STORE_FIRST"))
	for i := first; ; i++ {
		k := key(fmt.Sprint(i % 5))
		s.PutListing(k, newSample(100+i%300).listing)
		s.PutIdentities(k, 7, "emailid", newSample(100+i%300).ids)
		if err := s.PutUniqueIDs(k, numbered(i)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

func numbered(i int) UniqueIDs {
	return UniqueIDs{UIDValidity: uint64(i), Shown: []Shown{{uint64(i + 1), "M", fmt.Sprint("number ", i)}}}
}

// The file survives SIGKILL at any moment, and what PutUniqueIDs has acknowledged
// is in it. The process is killed right after it has printed the n-th number,
// whatever it does then.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	next := 0
	for round := range 8 {
		cmd := child(t, "kill", path)
		cmd.Env = append(cmd.Env, fmt.Sprint("POPGATE_STORE_FIRST=", next))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		last := -1
		for n := 0; n <= 5*round && lines.Scan(); n++ {
			last, _ = strconv.Atoi(lines.Text())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // printed before it was killed
			last, _ = strconv.Atoi(lines.Text())
		}
		_ = cmd.Wait() // returns the signal
		if last < next {
			t.Fatalf("round %d: nothing was acknowledged", round)
		}
		s, log := openStore(t, path, Options{MaxSize: MinMaxSize})
		for i := max(next, last-4); i <= last; i++ {
			u, _ := s.UniqueIDs(key(fmt.Sprint(i % 5)))
			if int(u.UIDValidity) < i {
				t.Errorf("round %d: number %d was acknowledged, %d is stored", round, i, u.UIDValidity)
			}
		}
		for i := range 5 {
			if l, ok := s.Listing(key(fmt.Sprint(i))); ok && !valid(l) {
				t.Errorf("round %d: an invalid listing", round)
			}
		}
		closeStore(t, s)
		if strings.Contains(log.String(), "aside") || strings.Contains(log.String(), "damaged") {
			t.Fatalf("round %d: %s", round, log)
		}
		next = last + 2
	}
}

// On a full disk records are not written, which is logged once when it begins and
// once when it ends.
func TestDiskFull(t *testing.T) {
	out, err := child(t, "full", filepath.Join(t.TempDir(), "store.db")).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	log := string(out)
	if strings.Count(log, "store cannot be written") != 1 || strings.Count(log, "store can be written again") != 1 ||
		strings.Contains(log, "aside") || !strings.HasSuffix(log, "all is well\n") {
		t.Error(log)
	}
}

// writeOnFullDisk makes the system refuse to let the file grow for a while.
func writeOnFullDisk(path string) {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := Open(path, Options{Log: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	if err != nil {
		panic(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		panic(err)
	}
	m := newSample(20_000)
	full := before
	full.Cur = 256 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		panic(err)
	}
	for i := range 3 {
		if s.PutUniqueIDs(key(fmt.Sprint(i)), m.unique) == nil {
			panic("written on a full disk")
		}
		s.PutListing(key("a"), m.listing)
		if _, ok := s.Listing(key("a")); !ok {
			panic("the record is not in memory")
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		panic(err)
	}
	for i := range 3 {
		if err := s.PutUniqueIDs(key(fmt.Sprint(i)), m.unique); err != nil {
			panic(err)
		}
	}
	if err := s.Close(); err != nil {
		panic(err)
	}
	fmt.Println("all is well")
}
