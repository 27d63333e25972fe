package authserver

// subjectFor returns the subject identifier by which a client knows a user.
func (s *Server) subjectFor(c *client, subject string) string { return subject }
