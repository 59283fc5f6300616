package imapbackend

import "context"

// compress puts DEFLATE on the connection (RFC 4978) where that is configured
// and the upstream offers it. It comes after the login, so that no password is
// compressed together with anything else. A refusal changes nothing.
func (u *upstream) compress(ctx context.Context) error {
	if !u.opts.Compress || !u.conn.Has("COMPRESS=DEFLATE") {
		return nil
	}
	status, err := u.run(ctx, "COMPRESS DEFLATE")
	if err != nil {
		return u.lost(atConnect, err)
	}
	if status.OK() {
		u.conn.Compress()
	}
	return nil
}
