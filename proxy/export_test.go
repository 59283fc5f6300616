package proxy

// Sessions returns the number of sessions.
func (srv *Server) Sessions() int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return len(srv.admission.sessions)
}
