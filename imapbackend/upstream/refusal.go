package upstream

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"popgate/imapbackend/wire"
)

// severity is what the text of a refusal says about how long it lasts.
type severity int

const (
	lasting   severity = iota // the text says nothing, or blames the credential
	temporary                 // a fault that passes by itself
	throttled                 // the upstream limits the account, whatever the credential
)

// The texts of servers that refuse without a response code that says so, and of
// those whose code says something else (requirement Q6).
var (
	throttledText = pattern(
		`throttl`, `\bback-?off\b`, `authenticated but not connected`,
		`\btoo many\b.*\b(connections?|sessions?|log-?ins?|attempts?|failures?|requests?|commands?)\b`,
		`\boverload`, `\bbandwidth\b`, `\brate limit`,
		`\b(maximum|limit|number) (number )?of (simultaneous |concurrent )?(connections|sessions|log-?ins)\b`,
		`\b(connection|session|command|login) limit`,
	)
	temporaryText = pattern(
		`\btry(ing)? again\b`, `\bretry\b`, `temporar`, `unavailable`, `\btoo many\b`, `\btimed?[- ]?out\b`,
		`\b(service|server|system|currently) (is )?(currently )?not available\b`,
		`\bbusy\b`, `\bat this time\b`, `\bmaintenance\b`, `\bshutting down\b`, `\bplease wait\b`, `\bwait \d`,
		`\b(internal( [a-z]+)?|system|server|backend|database|storage|i/o) (error|failure)\b`,
		`\b(imap)?sql(ite3?|state)?\b`, `\bdeadlock`, `\bserialization failure\b`,
		`\bconnection (refused|reset|lost|failed)\b`, `\b(cannot|can't|could not|unable to) (connect|contact|reach)\b`,
	)
	lockedText        = pattern(`\block(ed)?\b`)
	lockedAccountText = pattern(
		`\b(account|user|login|password|access)( (is|has|been|was|currently))* lock(ed)?\b`,
		`\blocked (out|account|user)\b`,
	)
	blamingText = pattern(
		`\b(invalid|incorrect|wrong|bad|unknown) (user ?name|user|login|account|password|credential|authentication)`,
		`\b(user ?name|user|login|account|password|credential)s?( [a-z]+)? (is |are )?(invalid|incorrect|wrong|unknown|mismatch)`,
		`\bno such user\b`, `\bno rows\b`, // the latter is what SQL says of an unknown user
	)
)

func pattern(alternatives ...string) *regexp.Regexp {
	return regexp.MustCompile(`(?i)` + strings.Join(alternatives, `|`))
}

// judge judges a status that is not OK by its text. A text that limits the
// account counts whatever else is said. One that names a fault does not count
// where the text or the response code blames the credential, or where the code
// asks for a person. A lock is that of a mailbox, which passes, unless the
// text is about the account.
func judge(s wire.Status) severity {
	text := s.Text + "\n" + s.Untagged
	switch {
	case throttledText.MatchString(text), s.Code == "THROTTLED":
		return throttled
	case s.Code == "AUTHENTICATIONFAILED", s.Code == "AUTHORIZATIONFAILED", s.Code == "EXPIRED",
		s.Code == "CONTACTADMIN", s.Code == "PRIVACYREQUIRED", s.Code == "CORRUPTION",
		blamingText.MatchString(text):
		return lasting
	case temporaryText.MatchString(text),
		lockedText.MatchString(text) && !lockedAccountText.MatchString(text):
		return temporary
	}
	return lasting
}

// maxWait bounds a wait that an upstream suggests.
const maxWait = 15 * time.Minute

// suggestedWaitText finds a number and its unit after a word that asks to wait,
// as in "Suggested Backoff Time: 299961 milliseconds".
var suggestedWaitText = regexp.MustCompile(
	`(?i)\b(?:back-?off|again|retry|retrying|wait)\b[^0-9]{0,40}([0-9]+)\s*(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|h)\b`)

// suggestedWait returns how long a refusal asks to wait, at most maxWait; 0 if
// it does not say, or if it blames the credential.
func suggestedWait(s wire.Status) time.Duration {
	if s.Type == "OK" || judge(s) == lasting && s.Code != "UNAVAILABLE" && s.Code != "LIMIT" && s.Code != "OVERQUOTA" {
		return 0
	}
	m := suggestedWaitText.FindStringSubmatch(s.Text + "\n" + s.Untagged)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseUint(m[1], 10, 32)
	if err != nil {
		return maxWait // not a number of 32 bits
	}
	unit := time.Minute
	switch m[2] = strings.ToLower(m[2]); {
	case strings.HasPrefix(m[2], "mil"), m[2] == "ms":
		unit = time.Millisecond
	case m[2][0] == 's':
		unit = time.Second
	case m[2][0] == 'h':
		unit = time.Hour
	}
	if n > uint64(maxWait/unit) {
		return maxWait
	}
	return time.Duration(n) * unit
}

// referralHost returns the server that a login referral names (RFC 2221); "" if
// it names none.
func referralHost(s wire.Status) string {
	location, _, _ := strings.Cut(s.Args, " ")
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	return u.Host
}
