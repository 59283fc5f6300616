package upstream

import (
	"context"
	"errors"
	"time"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// uses reports whether the server is to be addressed in all of the forms.
func (c *Conn) uses(f dialect.Form) bool {
	return c.attempt.avoids&f == 0 && c.learned.Uses(c.dialect, f)
}

// dare is called before commands in the given forms. The longest wait for the next
// octet of their answers is patience if the server takes the forms, Silence if one
// has never succeeded. A server that is known to take an initial response may take
// long to judge it.
func (c *Conn) dare(f dialect.Form, patience time.Duration) {
	c.daring = f &^ c.learned.Facts().Works
	if c.daring&^(c.dialect.Takes&dialect.InitialResponse) != 0 {
		patience = min(patience, Silence)
	}
	c.Wire.SetProgress(patience)
}

// TakesPartialFetch reports whether the server is to be asked for parts of messages.
func (c *Conn) TakesPartialFetch() bool { return c.uses(dialect.PartialFetch) }

// PartialFetched records that the server has sent a part of a message.
func (c *Conn) PartialFetched() { c.succeeded(dialect.PartialFetch) }

// PartialFetchRefused records that the server has answered BAD to a FETCH of a part
// of a message, and has sent all of it then. One that is known to send parts had
// another reason.
func (c *Conn) PartialFetchRefused(ctx context.Context, status wire.Status) {
	if (c.learned.Facts().Works|c.dialect.Takes)&dialect.PartialFetch == 0 {
		c.failed(ctx, dialect.PartialFetch, true, errors.New("imap: FETCH of a part of a message: "+c.Clean(status.String())))
	}
}

// succeeded records that forms work.
func (c *Conn) succeeded(f dialect.Form) {
	c.server.save(c.learned, c.learned.Succeeded(f))
}

// failed records that forms do not work and are replaced by more careful ones.
// Where the failure may have had another cause, a form that the server is known to
// take is only not used for some time.
func (c *Conn) failed(ctx context.Context, f dialect.Form, proved bool, cause error) {
	if f == 0 {
		return
	}
	var doubted, news bool
	if known := f & c.dialect.Takes; known != 0 && !proved {
		doubted = c.learned.Doubt(known)
		f &^= known
	}
	if f != 0 {
		news = c.learned.Failed(f)
		c.server.save(c.learned, news)
	}
	if doubted || news {
		proxy.Logger(ctx).WarnContext(ctx, "upstream does not take commands as they were sent, a more careful form is used from now on",
			"upstream", c.opts.Name, "forms", f, "cause", cause)
	}
}

// settle records, when the careful forms have succeeded, that those of f which
// were suspected do not work with servers of this kind.
func (c *Conn) settle(ctx context.Context, f dialect.Form) {
	a := c.attempt
	if a.accused != c.learned {
		return
	}
	f &= a.suspects
	a.suspects &^= f
	if f&searchForms != 0 {
		c.useSearch(ctx, dialect.ByFetch, a.cause)
	}
	c.failed(ctx, f&^searchForms, false, a.cause)
}
