//go:build integration

package servertest

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"popgate/imapbackend/dovecottest"
)

const (
	startTimeout = time.Minute // until the first greeting
	logTail      = 32 << 10    // octets of the log that a failed test prints
)

//go:embed servers
var servers embed.FS

// process is the first process of a server's PID namespace: sh, with run.sh.
type process struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when it and so all others have ended
	file   string        // the log
	syslog chan struct{} // closed when nothing more is logged by syslog(3)
	socket *net.UnixConn
}

var errInUse = errors.New("address already in use")

// newProcess starts a server in the directory dir, which it makes.
func newProcess(k kind, dir string, words map[string]string) (*process, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	words["DIR"] = dir
	if err := writeFiles(k, dir, words); err != nil {
		return nil, err
	}
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		if err := os.Link(filepath.Join(dir, "..", name), filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	p := &process{file: dir + ".log", done: make(chan struct{}), syslog: make(chan struct{})}
	log, err := os.OpenFile(p.file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := p.listenSyslog(filepath.Join(dir, "syslog"), log); err != nil {
		return nil, err
	}
	p.cmd = exec.Command("sh", "-e", "run.sh")
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), "HOME="+dir, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin:/usr/bin:/bin")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// The end of a namespace's first process is the end of all. It ends with
	// the test's process, should that be killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Setpgid:    true,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := p.cmd.Start(); err != nil {
		p.socket.Close()
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // the exit status says nothing that the log does not
		close(p.done)
	}()
	return p, nil
}

// writeFiles writes the files of a server, with the words replaced.
func writeFiles(k kind, dir string, words map[string]string) error {
	var pairs []string
	for word, value := range words {
		pairs = append(pairs, "@"+word+"@", value)
	}
	replacer := strings.NewReplacer(pairs...)
	entries, err := fs.ReadDir(servers, "servers/"+k.name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := fs.ReadFile(servers, "servers/"+k.name+"/"+e.Name())
		if err != nil {
			return err
		}
		if e.Name() == "run.sh" && k.part == debian {
			head, err := fs.ReadFile(servers, "servers/debian.sh")
			if err != nil {
				return err
			}
			text = append(head, text...)
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), []byte(replacer.Replace(string(text))), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// listenSyslog has what is sent to the socket at path written to the log, which
// it closes.
func (p *process) listenSyslog(path string, log *os.File) error {
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		err = os.Chmod(path, 0o666)
	}
	if err != nil {
		log.Close()
		return err
	}
	p.socket = socket
	go func() {
		defer close(p.syslog)
		defer log.Close()
		message := make([]byte, 8<<10)
		for {
			n, err := socket.Read(message)
			if err != nil {
				return
			}
			fmt.Fprintf(log, "%s\n", message[:n])
		}
	}()
	return nil
}

// awaitGreeting returns when an IMAP server greets at addr, and accepts at
// tlsAddr unless that is "". If none does, the process has ended.
func (p *process) awaitGreeting(addr, tlsAddr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	err := dovecottest.AwaitGreeting(ctx, addr, p.done)
	if err == nil && tlsAddr != "" {
		err = dovecottest.AwaitAccept(ctx, tlsAddr, p.done)
	}
	if err == nil {
		return nil
	}
	p.kill()
	if strings.Contains(strings.ToLower(p.log()), errInUse.Error()) {
		return errInUse
	}
	return err
}

// kill ends all processes of the server by SIGKILL and returns when they have
// ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended, which is what is asked for
	<-p.done
	p.socket.Close()
	<-p.syslog
}

// log returns the end of what the server has printed and logged.
func (p *process) log() string {
	file, err := os.Open(p.file)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > logTail {
		_, _ = file.Seek(-logTail, io.SeekEnd) // else all is returned
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
