package authserver

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// caller is who tries to sign in, as far as the throttle wants to know.
type caller struct {
	address netip.Addr
	// device is a browser in which the account's user has signed in before, or "".
	// It has counters of its own: whoever guesses at an account from elsewhere does
	// not keep its user out (ATTACKS BF-03).
	device string
	client string // client_id, where a client has the password
}

// knownDevice is the content of the cookie "known", sealed. It signs nobody in.
type knownDevice struct {
	ID       string   `json:"id"`
	Accounts []string `json:"accounts"` // hashes of folded usernames, the latest first
}

const (
	knownFor      = 400 * 24 * time.Hour // the most that browsers keep a cookie
	knownAccounts = 5
)

func (s *Server) knownDeviceOf(r *http.Request) (known knownDevice) {
	sealed, err := decodeSealed(s.cookieValue(r, "known"))
	if err != nil {
		return knownDevice{}
	}
	opened, err := s.knownBox.Open(sealed, nil)
	if err != nil || json.Unmarshal(opened, &known) != nil {
		return knownDevice{}
	}
	return known
}

// callerOf returns who tries to sign in to an account.
func (s *Server) callerOf(r *http.Request, username string) caller {
	from := caller{address: s.proxies.clientAddress(r)}
	if known := s.knownDeviceOf(r); slices.Contains(known.Accounts, hashed(foldUsername(username))) {
		from.device = known.ID
	}
	return from
}

// rememberDevice notes in the browser that the user has signed in there.
func (s *Server) rememberDevice(w http.ResponseWriter, r *http.Request, u user) error {
	known, account := s.knownDeviceOf(r), hashed(foldUsername(u.username))
	if known.ID == "" {
		known.ID = newID()
	}
	known.Accounts = slices.DeleteFunc(known.Accounts, func(one string) bool { return one == account })
	known.Accounts = append([]string{account}, known.Accounts...)
	known.Accounts = known.Accounts[:min(len(known.Accounts), knownAccounts)]
	encoded, err := json.Marshal(known)
	if err != nil {
		return err
	}
	cookie := s.cookie("known", encodeSealed(s.knownBox.Seal(encoded, nil)))
	cookie.MaxAge = int(knownFor / time.Second)
	http.SetCookie(w, cookie)
	return nil
}
