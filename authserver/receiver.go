package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// outcome is what came of one attempt to deliver an event.
type outcome int

const (
	eventDelivered outcome = iota
	eventRefused           // for good: it would be refused again
	eventFailed            // it may be tried again
)

const (
	maxReceiverAnswer = 16 << 10         // bytes that are read of an answer
	maxRetryAfter     = 10 * time.Minute // what a receiver may ask for
	maxShownAnswer    = 200              // bytes of it in the log
)

// refusals are the codes with which a receiver says that an event, as it is, will
// never be accepted (RFC 8935 §2.4).
var refusals = []string{"invalid_request", "invalid_key", "invalid_issuer", "invalid_audience", "authentication_failed", "access_denied"}

// answer is what came of one request.
type answer struct {
	outcome
	err   error         // unless it was delivered
	after time.Duration // the receiver asks not to be sent anything for so long
}

// push sends one event to one receiver (RFC 8935 §2.1).
func (s *Server) push(ctx context.Context, r *Receiver, e securityEvent) answer {
	token, err := s.securityEventToken(e, r)
	if err != nil {
		return answer{outcome: eventFailed, err: err}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, strings.NewReader(token))
	if err != nil {
		return answer{outcome: eventFailed, err: err}
	}
	request.Header.Set("Content-Type", "application/secevent+jwt")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "authserver")
	if r.Authorization != "" {
		request.Header.Set("Authorization", r.Authorization)
	}
	response, err := s.outbound.client.Do(request)
	if err != nil {
		var failure *url.Error
		if errors.As(err, &failure) {
			err = failure.Err // without the URL, which may hold a secret
		}
		return answer{outcome: eventFailed, err: err}
	}
	defer response.Body.Close()
	return judgeAnswer(response)
}

// judgeAnswer says what a receiver's answer means. Only 202 acknowledges: whatever
// answers 200 at a wrong URL has not taken the event (RFC 8935 §2.2).
func judgeAnswer(response *http.Response) answer {
	if response.StatusCode == http.StatusAccepted {
		return answer{outcome: eventDelivered}
	}
	var said struct {
		Code        string `json:"err"`
		Description string `json:"description"`
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxReceiverAnswer))
	if err == nil && response.StatusCode == http.StatusBadRequest && json.Unmarshal(body, &said) == nil && slices.Contains(refusals, said.Code) {
		// RFC 8935 §2.3: a problem with this event.
		return answer{outcome: eventRefused, err: fmt.Errorf("the receiver answers %s: %.*q", said.Code, maxShownAnswer, said.Description)}
	}
	failed := answer{outcome: eventFailed, err: fmt.Errorf("the receiver answers %d, not 202", response.StatusCode)}
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		failed.err = errors.New("the receiver redirects, which is not followed")
	}
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable {
		failed.after = retryAfter(response.Header.Get("Retry-After"), time.Now())
	}
	return failed
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110 §10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
