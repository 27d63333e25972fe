package authserver

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Token Status Lists (draft-ietf-oauth-status-list-21) show revocations to resource
// servers that do not follow the feed: a token of theirs has a place in a list of
// bits, and the bit says whether it was revoked.

const (
	statusListType = "statuslist+jwt"
	statusListPath = "/statuslists/"
	statusListKept = 5 * time.Second  // how long one is served
	statusListTTL  = 10 * time.Second // how long a resource server may keep it
	statusListExp  = time.Minute
	statusListWait = time.Second // for a list that is not known yet
)

// statusListClaims are those of a Status List Token (§5.1).
type statusListClaims struct {
	Subject  string     `json:"sub"` // the list's own URI
	IssuedAt int64      `json:"iat"`
	Expires  int64      `json:"exp"`
	TTL      int64      `json:"ttl"`
	List     statusList `json:"status_list"`
}

// statusList is §4.2.
type statusList struct {
	Bits int    `json:"bits"`
	List string `json:"lst"` // base64url of the DEFLATE-compressed bits in a ZLIB stream
}

// handleStatusList serves a Status List Token (§8.1). It is signed at most once in
// statusListKept and shared.
func (s *Server) handleStatusList(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("time") { // §8.4
		s.writeError(w, r, "status_list", &Error{Code: "invalid_request", Status: http.StatusNotImplemented,
			Description: "status lists are of the present only; leave out time"})
		return
	}
	path := r.URL.EscapedPath()
	token, err := s.statuses.token(r.Context(), path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		s.writeError(w, r, "status_list", err)
		return
	}
	s.metrics.requests.WithLabelValues("status_list", "ok").Inc()
	w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(int(statusListTTL.Seconds())))
	writeBody(w, r, "application/"+statusListType, []byte(token))
}

// served is a list as it was last signed.
type served struct {
	mu    sync.Mutex
	made  time.Time
	token string
}

// token returns the signed list.
func (l *statusLists) token(ctx context.Context, id string) (string, error) {
	held, asOf := l.find(id)
	// Another instance may just have begun it.
	asked, listed := time.Now(), l.server.resources.anyListed()
	stale := func() bool { return listed && time.Since(asOf) > statusListKept }
	unsure := func() bool { return listed && held == nil && asOf.Before(asked) }
	for unsure() && !stale() && time.Since(asked) < statusListWait && ctx.Err() == nil {
		pause(ctx, statusListWait/100)
		held, asOf = l.find(id)
	}
	if stale() || unsure() {
		return "", unavailable(errors.New("what was issued and revoked is not known for the last seconds"))
	}
	if held == nil {
		return "", &Error{Code: "not_found", Status: http.StatusNotFound,
			Description: "there is no such status list; lists go when the last of their tokens has expired"}
	}
	held.served.mu.Lock()
	defer held.served.mu.Unlock()
	if held.served.token != "" && time.Since(held.served.made) < statusListKept {
		return held.served.token, nil
	}
	encoded, err := encodeBits(l.bits(held))
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(statusListClaims{Subject: l.uri(id), IssuedAt: asOf.Unix(), Expires: asOf.Add(statusListExp).Unix(),
		TTL: int64(statusListTTL.Seconds()), List: statusList{Bits: 1, List: encoded}})
	if err != nil {
		return "", fmt.Errorf("encoding a status list: %w", err)
	}
	token, err := l.server.keys.Sign(l.server.keys.Default(), statusListType, payload)
	if err != nil {
		return "", signingTrouble(err)
	}
	held.served.token, held.served.made = token, time.Now()
	return token, nil
}

// find returns a list if it is known, and when all was: the bits are as old as the
// older of the logs that they come from.
func (l *statusLists) find(id string) (*issuedList, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lists[id], earlier(l.asOf, l.server.feed.asOf())
}

func (l *statusLists) uri(id string) string { return l.server.issuer + statusListPath + id }

// bits returns the list: bit i%8 of byte i/8, from the least significant on, is the
// status of index i (§4.1).
func (l *statusLists) bits(held *issuedList) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	bits := make([]byte, listSize/8)
	for index, issued := range held.places {
		if _, revoked := l.server.feed.set.Revoked(issued.subjects); revoked {
			bits[index/8] |= 1 << (index % 8)
		}
	}
	return bits
}

func encodeBits(bits []byte) (string, error) {
	var compressed bytes.Buffer
	writer, err := zlib.NewWriterLevel(&compressed, zlib.BestCompression)
	if err != nil {
		return "", err
	}
	writer.Write(bits) // to memory
	if err := writer.Close(); err != nil {
		return "", fmt.Errorf("compressing a status list: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(compressed.Bytes()), nil
}
