package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"popgate/imapbackend"
	"popgate/imapbackend/uniqueid"
	"popgate/proxy"
)

// samples has, by the header of its table, a good value for each key that is not
// its default. A new key needs a line here.
var samples = map[string]map[string]string{
	"[[listener]]": {
		"address":             `":995"`,
		"tls":                 `"implicit"`,
		"min_tls":             `"1.0"`,
		"legacy_ciphers":      `true`,
		"cert_file":           `"cert.pem"`,
		"key_file":            `"key.pem"`,
		"certificate":         "[[key]]\ncert_file = \"cert.pem\"",
		"insecure_login_from": `["127.0.0.0/8"]`,
		"proxy_protocol_from": `["192.0.2.1"]`,
	},
	"[[listener.certificate]]": {
		"cert_file": `"cert.pem"`,
		"key_file":  `"key.pem"`,
	},
	"[session]": {
		"autologout":          `"11m"`,
		"login_attempts":      `4`,
		"auth_list":           `false`,
		"utf8":                `true`,
		"capabilities_hidden": `["TOP"]`,
		"shutdown_grace":      `"1s"`,
		"expire":              `"30"`,
		"login_delay":         `"5m"`,
		"implementation":      `"popgate"`,
	},
	"[limits]": {
		"connections":             `0`,
		"connections_per_address": `1`,
		"unauthenticated":         `1`,
		"read_ahead_total":        `"0"`,
	},
	"[throttle]": {
		"delay":     `"0s"`,
		"max_delay": `"16s"`,
		"window":    `"1h"`,
	},
	"[[upstream]]": {
		"name":                 `"mail"`,
		"address":              `"imap.example.com:993"`,
		"srv":                  `"example.com"`,
		"tls":                  `"starttls"`,
		"insecure":             `true`,
		"server_name":          `"imap.example.com"`,
		"ca_file":              `"ca.pem"`,
		"mailbox":              `"Archive"`,
		"auth":                 `["cram-md5"]`,
		"delete":               `"keep"`,
		"without_uidplus":      `"refuse"`,
		"trash":                `"Trash"`,
		"seen":                 `"on-retr"`,
		"sizes":                `"exact"`,
		"uidl":                 `"gmail"`,
		"uidl_memory":          `true`,
		"uidl_import":          `"former.uidl"`,
		"read_ahead":           `"0"`,
		"deleted_messages":     `"show"`,
		"compress":             `true`,
		"keep_open":            `"10m"`,
		"profile":              `"cyrus"`,
		"pipelining":           `"off"`,
		"send_id":              `"after-login"`,
		"authenticate":         `"login"`,
		"search":               `"fetch"`,
		"partial_fetch":        `"off"`,
		"max_user_connections": `8`,
		"max_logins":           `8`,
		"send_client_id":       `true`,
	},
	"[[route]]": {
		"match":      `"*@example.com"`,
		"match_file": `"domains.map"`,
		"upstream":   `"mail"`,
		"user":       `"{local}"`,
	},
	"[[lookup]]": {
		"url":            `"http://127.0.0.1:9000/auth"`,
		"protocol":       `"auth_http"`,
		"header":         `{ X-Auth-Key = "secret" }`,
		"send_password":  `true`,
		"upstreams":      `["127.0.0.1:143"]`,
		"timeout":        `"1s"`,
		"cache":          `"0s"`,
		"cache_negative": `"0s"`,
		"stale":          `"0s"`,
		"ca_file":        `"ca.pem"`,
	},
	"[store]": {
		"path":     `"store.db"`,
		"max_size": `"1MiB"`,
	},
	"[log]": {
		"level":  `"warn"`,
		"format": `"json"`,
	},
}

// Each key has a sample and sets something.
func TestKeys(t *testing.T) {
	c := defaults()
	sets(t, "[[listener]]", listenerKeys, defaultListener())
	sets(t, "[[listener.certificate]]", certificateKeys, pairFiles{})
	sets(t, "[session]", sessionKeys, c.Session)
	sets(t, "[limits]", limitsKeys, c.Limits)
	sets(t, "[throttle]", throttleKeys, c.Throttle)
	sets(t, "[[upstream]]", upstreamKeys, defaultUpstream())
	sets(t, "[[route]]", routeKeys, Route{})
	sets(t, "[[lookup]]", lookupKeys, Lookup{Options: defaultLookup().Options})
	sets(t, "[store]", storeKeys, c.Store)
	sets(t, "[log]", logKeys, c.Log)
	for _, table := range tables() {
		if samples[table.header] == nil {
			t.Errorf("no sample for %s", table.header)
		}
	}
}

// sets checks the keys of one table against their samples.
func sets[T any](t *testing.T, header string, keys keyTable[T], defaults T) {
	t.Helper()
	for key := range samples[header] {
		if keys[key] == nil {
			t.Errorf("%s: a sample for %s, which is not a key", header, key)
		}
	}
	for key, set := range keys {
		sample, ok := samples[header][key]
		if !ok {
			t.Errorf("%s: no sample for %s", header, key)
			continue
		}
		got := defaults
		if f := set(&got, decoded(t, sample)); f != nil {
			t.Errorf("%s: %s = %s: %s", header, key, sample, f.what)
		} else if reflect.DeepEqual(got, defaults) {
			t.Errorf("%s: %s = %s sets nothing but the default", header, key, sample)
		}
	}
}

// decoded returns a sample as the TOML decoder does.
func decoded(t *testing.T, sample string) any {
	t.Helper()
	var table map[string]any
	if !strings.HasPrefix(sample, "[[") {
		sample = "key = " + sample
	}
	if _, err := toml.Decode(sample, &table); err != nil {
		t.Fatalf("%s: %v", sample, err)
	}
	return table["key"]
}

// Each field of the options that a table configures is set by one of its keys,
// or is an exception listed here with the reason.
func TestFields(t *testing.T) {
	covers(t, "[[upstream]]", upstreamKeys, defaultUpstream, func(u *Upstream) *imapbackend.Options { return &u.Options },
		"RootCAs", "UIDLImport", // set by the check, which reads ca_file and uidl_import
		"ReadAheadTotal",                      // in [limits], for all upstreams
		"Store", "Version", "Observer", "Tap") // set by the caller
	covers(t, "[session]", sessionKeys, defaultSession, func(s *Session) *proxy.Options { return &s.Options },
		"Limits",                                               // in [limits]
		"Mechanisms",                                           // in [[upstream]], which may not offer those that are relayed
		"Backend", "Logger", "Locker", "Throttler", "Observer") // set by the caller
	covers(t, "[[listener]]", listenerKeys, defaultListener, func(l *Listener) *proxy.ListenerOptions { return &l.Options },
		"TLS") // set by the check, which reads the certificates
}

// covers checks that the samples of a table change each field of O, except
// those named.
func covers[T, O any](t *testing.T, header string, keys keyTable[T], defaults func() T, options func(*T) *O, except ...string) {
	t.Helper()
	changed, before := defaults(), defaults()
	for key, set := range keys {
		if f := set(&changed, decoded(t, samples[header][key])); f != nil {
			t.Fatalf("%s: %s: %s", header, key, f.what)
		}
	}
	now, was := reflect.ValueOf(*options(&changed)), reflect.ValueOf(*options(&before))
	for i := range now.NumField() {
		name := now.Type().Field(i).Name
		same := reflect.DeepEqual(now.Field(i).Interface(), was.Field(i).Interface())
		if same != slices.Contains(except, name) {
			t.Errorf("%s: %s of %s is set by a key: %v", header, name, now.Type(), !same)
		}
	}
}

// The options that errors of imapbackend name are keys.
func TestOptionNames(t *testing.T) {
	wrong := imapbackend.Options{ // as many errors as possible at once
		Address:      "a",
		SRV:          "a.example",
		ServerName:   "a:1",
		Mailbox:      "\xff",
		Trash:        "\xff",
		UIDL:         "{",
		UIDLImport:   new(uniqueid.Import),
		ShowDeleted:  true,
		KeepOpen:     imapbackend.MaxKeepOpen + 1,
		SendClientID: true,
	}
	_, errs := wrong.Resolve()
	if len(errs) < 10 {
		t.Errorf("%d errors: %v", len(errs), errs)
	}
	for _, e := range errs {
		for _, name := range append([]string{e.Option}, e.Others...) {
			if upstreamKeys[name] == nil {
				t.Errorf("%v: %s is not a key", e, name)
			}
		}
	}
	for name := range upstreamRemedies {
		if !slices.ContainsFunc(errs, func(e *imapbackend.OptionError) bool { return e.Option == name }) {
			t.Errorf("a remedy for %s, which has no error", name)
		}
	}
}
