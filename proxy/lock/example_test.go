package lock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"popgate/proxy/lock"
)

// The second session on a maildrop learns which one holds it.
func ExampleLocal() {
	var locks lock.Local
	first, err := locks.Acquire(context.Background(), "joe's INBOX", "session 1")
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err = locks.Acquire(ctx, "joe's INBOX", "session 2")
	if held, ok := errors.AsType[*lock.HeldError](err); ok {
		fmt.Println("held by", held.Holder)
	}

	first.Release()
	second, err := locks.Acquire(context.Background(), "joe's INBOX", "session 2")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer second.Release()
	fmt.Println("acquired")
	// Output:
	// held by session 1
	// acquired
}
