package authserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// waitEnforced as the parameter wait of any call has it answered when everything
// that it ended is enforced by every verifier.
const waitEnforced = "enforced"

// waited waits for that, and adds the member enforced to the answer of a call.
func (s *Server) waited(ctx context.Context, answer any) (any, error) {
	enforced, err := s.enforced(ctx)
	if err != nil {
		return nil, &AdminError{Code: "unavailable", status: http.StatusServiceUnavailable, cause: err,
			Message: "it is done, but the verifiers could not be asked whether it is enforced",
			Hint:    fmt.Sprintf("verifiers that hold a lease enforce it within %s", enforcedWithin)}
	}
	return withEnforcement(answer, enforced)
}

// withEnforcement returns an answer, which is a JSON object, with one more member.
func withEnforcement(answer any, enforced Enforcement) (json.RawMessage, error) {
	object, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("encoding an answer: %w", err)
	}
	member, err := json.Marshal(map[string]Enforcement{"enforced": enforced})
	if err != nil {
		return nil, fmt.Errorf("encoding an answer: %w", err)
	}
	inside := bytes.TrimSuffix(bytes.TrimPrefix(object, []byte("{")), []byte("}"))
	if len(inside) == len(object) || len(inside) == 0 { // no object, or an empty one
		return member, nil
	}
	return bytes.Join([][]byte{[]byte("{"), inside, []byte(","), member[1:]}, nil), nil
}
