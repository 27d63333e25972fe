package differential

import (
	"bufio"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"authserver/internal/accesstoken"
	"authserver/internal/intake"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// library verifies a token by a key whose algorithm is pinned, and returns the payload.
// Times, issuer and audience are nobody's business here.
type library struct {
	name   string
	verify func(s sample) (payload []byte, err error)
	claims bool // takes tokens with claims only
}

// ours is what package verifier does with a token before it looks at what the claims
// say.
func ours(s sample) ([]byte, error) {
	token, err := intake.Parse(s.token)
	if err != nil {
		return nil, err
	}
	if err := token.Verify(s.key); err != nil {
		return nil, err
	}
	if !s.raw {
		_, err = accesstoken.Decode(token.Payload)
	}
	return token.Payload, err
}

func goJOSE(s sample) ([]byte, error) {
	parsed, err := jose.ParseSignedCompact(s.token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(s.key.Algorithm)})
	if err != nil {
		return nil, err
	}
	return parsed.Verify(s.key.Public)
}

func golangJWT(s sample) ([]byte, error) {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{s.key.Algorithm}), jwt.WithoutClaimsValidation())
	var claims jwt.MapClaims
	if _, err := parser.ParseWithClaims(s.token, &claims, func(*jwt.Token) (any, error) { return s.key.Public, nil }); err != nil {
		return nil, err
	}
	return json.Marshal(claims)
}

func jwx(s sample) ([]byte, error) {
	algorithm, known := jwa.LookupSignatureAlgorithm(s.key.Algorithm)
	if !known {
		return nil, errors.New("unknown algorithm")
	}
	return jws.Verify([]byte(s.token), jws.WithKey(algorithm, s.key.Public), jws.WithCompact())
}

// jwkOf writes a key for npm jose.
func jwkOf(t *testing.T, algorithm string, public crypto.PublicKey) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKey{Key: public, Algorithm: algorithm})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// npmJOSE asks a process of Node.js, where jose is installed (.ci/setup does it).
func npmJOSE(t *testing.T) *library {
	t.Helper()
	modules, err := filepath.Abs(filepath.Join("..", "..", "resource-example", "node", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "jose")); err != nil {
		t.Log("npm jose is not here: without it")
		return nil
	}
	command := exec.CommandContext(t.Context(), "node", "jose.cjs")
	command.Env, command.Stderr = append(os.Environ(), "NODE_PATH="+modules), os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); command.Wait() })
	answers := bufio.NewReader(out)
	return &library{name: "npm jose", verify: func(s sample) ([]byte, error) {
		question, err := json.Marshal(map[string]any{"token": base64.StdEncoding.EncodeToString([]byte(s.token)), "jwk": json.RawMessage(s.jwk), "alg": s.key.Algorithm})
		if err != nil {
			return nil, err
		}
		if _, err := in.Write(append(question, '\n')); err != nil {
			return nil, err
		}
		line, err := answers.ReadBytes('\n')
		if err != nil {
			return nil, errors.Join(io.ErrUnexpectedEOF, err)
		}
		var answer struct {
			Payload []byte `json:"payload"`
			Error   string `json:"error"`
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return nil, err
		}
		if answer.Error != "" {
			return nil, errors.New(answer.Error)
		}
		return answer.Payload, nil
	}}
}
