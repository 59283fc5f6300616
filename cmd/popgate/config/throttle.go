package config

import (
	"fmt"
	"time"

	"popgate/proxy"
)

func defaultThrottle() proxy.ThrottleOptions {
	return proxy.ThrottleOptions{Delay: 2 * time.Second, MaxDelay: 15 * time.Second, Window: 10 * time.Minute}
}

var throttleKeys = keyTable[proxy.ThrottleOptions]{
	"delay":     duration(func(t *proxy.ThrottleOptions) *time.Duration { return &t.Delay }, 0, time.Minute, "2s"),
	"max_delay": duration(func(t *proxy.ThrottleOptions) *time.Duration { return &t.MaxDelay }, 0, 5*time.Minute, "15s"),
	"window":    duration(func(t *proxy.ThrottleOptions) *time.Duration { return &t.Window }, time.Second, 24*time.Hour, "10m"),
}

func checkThrottle(l *loader, c *Config) {
	if t := c.Throttle; t.MaxDelay < t.Delay && !l.wrong("throttle.delay") && !l.wrong("throttle.max_delay") {
		l.fail("throttle.max_delay", fmt.Sprintf("%s is below delay", short(t.MaxDelay)),
			fmt.Sprintf("write %s or more", short(t.Delay)))
	}
}
