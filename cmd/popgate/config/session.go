package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	"expire":              expire(func(s *Session) *string { return &s.Options.Expire }),
	"login_delay":         wholeSeconds(func(s *Session) *time.Duration { return &s.Options.LoginDelay }, 24*time.Hour, "5m"),
	"implementation":      oneWord(func(s *Session) *string { return &s.Options.Implementation }, "popgate"),
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

// expire accepts "never" or a number of days.
func expire[T any](field func(*T) *string) setter[T] {
	const want = `"never" or a number of days such as "30"`
	set := textLike(field, want)
	return func(dst *T, v any) *fault {
		if f := set(dst, v); f != nil {
			return f
		}
		s := *field(dst)
		if _, err := strconv.ParseUint(s, 10, 31); err != nil && s != "never" {
			return &fault{what: fmt.Sprintf("%q is no time that messages are kept", s), remedy: "write " + want}
		}
		*field(dst) = strings.ToUpper(s)
		return nil
	}
}

// wholeSeconds is duration for a number of seconds, up to highest.
func wholeSeconds[T any](field func(*T) *time.Duration, highest time.Duration, example string) setter[T] {
	set := duration(field, 0, highest, example)
	return func(dst *T, v any) *fault {
		if f := set(dst, v); f != nil {
			return f
		}
		if d := *field(dst); d%time.Second != 0 {
			return &fault{what: fmt.Sprintf("%v is no whole number of seconds", d), remedy: fmt.Sprintf("write a string such as %q", example)}
		}
		return nil
	}
}

// oneWord is text for a word of printable ASCII.
func oneWord[T any](field func(*T) *string, example string) setter[T] {
	set := text(field, example)
	return func(dst *T, v any) *fault {
		if f := set(dst, v); f != nil {
			return f
		}
		if s := *field(dst); strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return &fault{what: fmt.Sprintf("%q is more than a word of ASCII", s), remedy: fmt.Sprintf("write one such as %q", example)}
		}
		return nil
	}
}
