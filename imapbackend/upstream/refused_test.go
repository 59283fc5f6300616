package upstream

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
)

// I-LOGIN-10: which credential counts as refused, for how long, and what ends it.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cred := func(authzid, user, password string) proxy.Credential {
			return proxy.Credential{Authzid: authzid, Username: user, Password: password}
		}
		var r refusals
		refused := func(c proxy.Credential) bool { _, ok := r.age(c); return ok }
		wrong := cred("", "joe", "wrong")
		if refused(wrong) {
			t.Error("refused before")
		}
		r.accepted("joe")
		r.add(wrong)
		for _, c := range []proxy.Credential{
			cred("", "joe", "Wrong"), cred("", "JOE", "wrong"), cred("joe", "joe", "wrong"), cred("", "joewrong", ""), cred("", "bob", "wrong"),
		} {
			if refused(c) {
				t.Errorf("%+v is refused", c)
			}
		}
		<-time.After(refusedFor - 1)
		if age, ok := r.age(wrong); !ok || age != refusedFor-1 {
			t.Errorf("refused %v ago, %v", age, ok)
		}
		<-time.After(1)
		if refused(wrong) {
			t.Error("refused after the time")
		}
		r.add(wrong)
		r.add(cred("", "bob", "wrong"))
		r.accepted(CanonicalUser("", "JOE"))
		if refused(wrong) || !refused(cred("", "bob", "wrong")) {
			t.Error("refused after a success of that name, or not without one")
		}
	})
}

// I-LOGIN-10: the memory is limited, by users and for each of them.
func TestRefusalsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		for i := range maxRefused + 10 {
			r.add(proxy.Credential{Username: fmt.Sprint("user", i)})
		}
		for i := range maxRefusedOf + 2 {
			r.add(proxy.Credential{Username: "joe", Password: fmt.Sprint(i)})
		}
		if n := r.order.Len(); n != maxRefused || len(r.users) != n {
			t.Errorf("%d users", n)
		}
		for i := range maxRefusedOf + 2 {
			if _, ok := r.age(proxy.Credential{Username: "joe", Password: fmt.Sprint(i)}); ok != (i >= 2) {
				t.Errorf("password %d: %v", i, ok)
			}
		}
		<-time.After(refusedFor)
		if r.add(proxy.Credential{Username: "joe"}); r.order.Len() != 1 {
			t.Errorf("%d users after the time", r.order.Len())
		}
	})
}
