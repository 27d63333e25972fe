package authserver

import (
	"fmt"
	"net/http"
)

// preparePages makes what the pages need beside their templates.
func (s *Server) preparePages(c Config) error {
	s.outbound = newOutbound(c.OutboundNetworks)
	s.backchannel = newBackchannel(s)
	s.crossOrigin = http.NewCrossOriginProtection()
	s.scopeTexts = make(map[string]Text)
	for _, scope := range c.Scopes {
		s.scopeTexts[scope.Name] = scope.Description
	}
	var err error
	if s.totpBox, err = c.Keys.Box("totp secret"); err != nil {
		return err
	}
	if s.knownBox, err = c.Keys.Box("known device"); err != nil {
		return err
	}
	if s.logoutBox, err = c.Keys.Box("logout"); err != nil {
		return err
	}
	box, err := c.Keys.Box("passkey question")
	if err != nil {
		return err
	}
	if s.passkeys, err = newPasskeys(c.Issuer, s.service(), box); err != nil {
		return fmt.Errorf("preparing the pages: %w", err)
	}
	return nil
}
