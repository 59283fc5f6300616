package proxy

// Sessions returns the number of connections that are being served.
func (srv *Server) Sessions() int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return len(srv.admission.sessions)
}
