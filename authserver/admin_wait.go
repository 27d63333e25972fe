package authserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// waitEnforced as the parameter wait of any call has it answered when everything
// that it ended is enforced by every verifier.
const waitEnforced = "enforced"

// waited waits for that, and adds the member enforced to the answer of a call. What the
// call has done is told in any case: an answer may hold what is shown only once.
func (s *Server) waited(ctx context.Context, answer any) (any, error) {
	enforced, err := s.enforced(ctx)
	if err != nil {
		s.log.Warn("verifiers could not be asked whether revocations are enforced", "error", err)
		enforced = Enforcement{Error: fmt.Sprintf("it is done, but the verifiers could not be asked whether it is enforced; "+
			"those that hold a lease enforce it within %s", enforcedWithin)}
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
