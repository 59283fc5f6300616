package locktest_test

import (
	"testing"

	"go.uber.org/goleak"

	"popgate/proxy/lock"
	"popgate/proxy/lock/locktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestLosable runs the suite on a Locker that loses locks.
func TestLosable(t *testing.T) {
	locktest.Run(t, locktest.Suite{
		New:  func(*testing.T) lock.Locker { return new(locktest.Losable) },
		Lose: func(l lock.Locker, key string) { l.(*locktest.Losable).Lose(key) },
	})
}
