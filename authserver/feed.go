package authserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"authserver/internal/feed"
	"authserver/keys"
)

// Who may read the feed.
const (
	revocationsOpen          = "open"          // anybody: what is revoked shows as hashes
	revocationsAuthenticated = "authenticated" // clients that are resource servers, or come with a token of scope verifier
)

const (
	maxStreams    = 20000
	streamWrite   = 2 * time.Second // a reader that takes longer is cut off, and resumes
	snapshotWrite = time.Minute
	maxNonce      = 128 // bytes
)

// Run does what goes on without requests, until ctx ends: it follows the log of
// revocations, and tells clients of logouts. Streams of the feed end with it.
func (s *Server) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { s.feed.follow(ctx) })
	running.Go(func() { s.feed.publish(ctx) })
	running.Go(func() { s.finishAll(ctx) })
	running.Go(func() { s.feed.stayRegistered(ctx) })
	running.Go(func() { s.statuses.follow(ctx) })
	running.Go(func() { s.backchannel.run(ctx) })
	running.Go(func() { s.outbox.run(ctx) })
	<-ctx.Done()
	s.feed.end()
	running.Wait()
}

// handleRevocations is GET /revocations: a snapshot, or the stream that continues it.
// A POST acknowledges what the stream said.
func (s *Server) handleRevocations(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		s.serveJSON("revocations_acknowledge", s.handleAcknowledge).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	stream := strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	endpoint := "revocations"
	token, err := s.mayFollow(w, r)
	switch {
	case err != nil:
	case !s.feed.known():
		err = unavailable(errors.New("the log of revocations was not read yet"))
	case stream:
		endpoint = "revocations_stream"
		err = s.feed.serveStream(w, r, token)
	default:
		err = s.feed.serveSnapshot(w, r)
	}
	if err != nil {
		s.writeError(w, r, endpoint, err)
		return
	}
	s.metrics.requests.WithLabelValues(endpoint, "ok").Inc()
}

// mayFollow says whether the caller may read the feed, and by which access token, if
// by one.
func (s *Server) mayFollow(w http.ResponseWriter, r *http.Request) (*verifierToken, error) {
	if s.revocationsAccess != revocationsAuthenticated {
		return nil, nil
	}
	c, token, err := s.authenticateVerifier(w, r, form{})
	if err != nil {
		return nil, err
	}
	if c.resource == "" && token == nil {
		return nil, c.refused(&Error{Code: "unauthorized_client", Status: http.StatusForbidden,
			Description: "the feed is for clients that are resource servers; set the client's resource, or have it come with an access token of scope verifier"})
	}
	return token, nil
}

func (f *revocationFeed) serveSnapshot(w http.ResponseWriter, r *http.Request) error {
	plain, zipped, err := f.snapshot.get(f)
	if err != nil {
		return signingTrouble(err)
	}
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(snapshotWrite))
	w.Header().Add("Vary", "Accept, Accept-Encoding")
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		w.Header().Set("Content-Encoding", "gzip")
		plain = zipped
	}
	writeBody(w, r, "application/json", plain)
	return nil
}

// acceptsGzip is RFC 9110 §12.5.3 for one encoding, which a weight of zero forbids.
func acceptsGzip(header string) bool {
	for one := range strings.SplitSeq(strings.ToLower(strings.ReplaceAll(header, " ", "")), ",") {
		if name, weight, _ := strings.Cut(one, ";"); name == "gzip" {
			return strings.TrimRight(weight, "0.") != "q="
		}
	}
	return false
}

// serveStream writes frames until the reader goes away or cannot keep up, the token
// that let it in ends, or the server. It returns an error only while nothing was written.
func (f *revocationFeed) serveStream(w http.ResponseWriter, r *http.Request, token *verifierToken) error {
	nonce := r.URL.Query().Get("nonce")
	if len(nonce) > maxNonce {
		return invalidRequest("the nonce is longer than %d bytes", maxNonce)
	}
	if f.streams.Add(1) > maxStreams {
		f.streams.Add(-1)
		return unavailable(errors.New("too many streams of the feed"))
	}
	f.server.metrics.streams.Inc()
	defer func() { f.streams.Add(-1); f.server.metrics.streams.Dec() }()
	cursor := feed.Cursor(r.Header.Get("Last-Event-ID"))
	lease, secret, err := f.join(r) // before resume: whoever waits for all verifiers counts on it
	if err != nil {
		return err
	}
	defer f.leave(r, lease)
	at, asOf, missing, ok := f.resume(cursor)
	if !ok {
		return &Error{Code: "invalid_request", Status: http.StatusGone,
			Description: "the Last-Event-ID is not known here any more; load a snapshot and continue from its cursor"}
	}
	if cursor == "" {
		cursor = at.cursor
	}
	lease.begin(at.cursor, asOf)
	first, err := f.first(feed.Frame{Nonce: nonce, After: cursor, Lease: secret}, asOf, missing)
	if err != nil {
		return signingTrouble(err)
	}
	connection := http.NewResponseController(w)
	connection.SetReadDeadline(time.Time{}) // the request's; when it passed, the context would end
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would gather frames
	if r.Method == http.MethodHead {
		return nil
	}
	var expired <-chan time.Time
	if token != nil {
		timer := time.NewTimer(time.Until(token.expires))
		defer timer.Stop()
		expired = timer.C
	}
	for pending := append([]byte("retry: 1000\n\n"), first...); ; {
		connection.SetWriteDeadline(time.Now().Add(streamWrite))
		if _, err := w.Write(pending); err != nil {
			return nil
		}
		if err := connection.Flush(); err != nil {
			return nil
		}
		select {
		case <-at.ready:
		case <-r.Context().Done():
			return nil
		case <-expired:
			return nil
		case <-f.ended:
			return nil
		}
		if token != nil {
			if _, revoked := f.set.Revoked(token.subjects); revoked {
				return nil
			}
		}
		pending, at = at.following()
		lease.extend(at.asOf)
	}
}

// following returns the events of all frames after s, and the last of them.
func (s *sentFrame) following() ([]byte, *sentFrame) {
	events, last := s.next.event, s.next
	for joined := false; ; {
		select {
		case <-last.ready:
		default:
			return events, last
		}
		last = last.next
		if !joined {
			events, joined = append([]byte(nil), events...), true
		}
		events = append(events, last.event...)
	}
}

// end ends all streams; readers go on at another server, or come back.
func (f *revocationFeed) end() { close(f.ended) }

// signingTrouble makes the keys' passing troubles a 503.
func signingTrouble(err error) error {
	if keys.Passes(err) {
		return unavailable(err)
	}
	return err
}
