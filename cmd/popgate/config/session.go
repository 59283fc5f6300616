package config

import (
	"slices"
	"time"

	"popgate/proxy"
)

// Session is [session].
type Session struct {
	Options       proxy.Options // only the fields that have keys in [session]
	ShutdownGrace time.Duration
}

func defaultSession() Session {
	return Session{Options: proxy.Defaults(), ShutdownGrace: 60 * time.Second}
}

var sessionKeys = keyTable[Session]{
	"autologout":          duration(func(s *Session) *time.Duration { return &s.Options.Autologout }, proxy.MinAutologout, 24*time.Hour, "10m"),
	"login_attempts":      integer(func(s *Session) *int { return &s.Options.LoginAttempts }, 1, 100),
	"auth_list":           negated(func(s *Session) *bool { return &s.Options.NoAuthList }),
	"utf8":                boolean(func(s *Session) *bool { return &s.Options.UTF8 }),
	"capabilities_hidden": anyOf(func(s *Session) *[]string { return &s.Options.HiddenCapabilities }, proxy.Capabilities()...),
	"shutdown_grace":      duration(func(s *Session) *time.Duration { return &s.ShutdownGrace }, 0, time.Hour, "60s"),
}

// ProxyOptions returns the options of the server, without Backend, Logger and
// Throttler. It offers the mechanisms of all upstreams.
func (c *Config) ProxyOptions() proxy.Options {
	o := c.Session.Options
	o.Limits = c.Limits.Options
	o.Mechanisms = []string{}
	for i := range c.Upstreams {
		for _, m := range c.Upstreams[i].Auth {
			if !slices.Contains(o.Mechanisms, m) {
				o.Mechanisms = append(o.Mechanisms, m)
			}
		}
	}
	return o
}
