//go:build integration

package dovecottest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// ErrEnded is the error of a server whose process has ended.
var ErrEnded = errors.New("it has ended")

// AwaitGreeting returns when any IMAP server greets at the host:port addr. It fails
// when ctx is done, or with ErrEnded when done is closed.
func AwaitGreeting(ctx context.Context, addr string, done <-chan struct{}) error {
	return await(ctx, done, func() error { return greeted(ctx, addr) })
}

// AwaitAccept is AwaitGreeting for a server that accepts a connection and may wait
// for the client.
func AwaitAccept(ctx context.Context, addr string, done <-chan struct{}) error {
	return await(ctx, done, func() error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// await repeats try until it succeeds.
func await(ctx context.Context, done <-chan struct{}, try func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return ErrEnded
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func greeted(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "* OK") {
		err = fmt.Errorf("greeting %q", line)
	}
	return err
}
