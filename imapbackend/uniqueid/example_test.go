package uniqueid_test

import (
	"fmt"

	"popgate/imapbackend/uniqueid"
)

// The unique-ids that Dovecot makes by default.
func ExampleTemplate() {
	t, err := uniqueid.Parse("{uid:08x}{uidvalidity:08x}")
	if err != nil {
		fmt.Println(err)
		return
	}
	appendID := t.Bind(1700000000)
	fmt.Printf("%s\n", appendID(nil, 42))

	_, err = uniqueid.Parse("{uidvalidity}")
	fmt.Println("{uidvalidity}", err)
	// Output:
	// 0000002a6553f100
	// {uidvalidity} has no {uid}: all messages would have the same unique-id
}

// The identity that a message has on every server that stores it unchanged.
func ExampleHeaderIdentity() {
	header := "Message-ID: <1@example.org>\r\nSubject: x\r\n\r\n"
	moved := "message-id:   <1@example.org>\r\nSubject: x\r\n\r\n"
	fmt.Println(uniqueid.HeaderIdentity([]byte(header), 2000) == uniqueid.HeaderIdentity([]byte(moved), 2000))
	// Output: true
}
