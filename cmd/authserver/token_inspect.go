package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"authserver/internal/intake"
)

// kinds are the typ values that are known here, in lower case.
var kinds = map[string]string{
	"at+jwt":                    "access token (RFC 9068)",
	"rt+jwt":                    "refresh token, for the authorization server only",
	"client-authentication+jwt": "client assertion (RFC 7523)",
	"dpop+jwt":                  "DPoP proof (RFC 9449)",
	"logout+jwt":                "logout token (OpenID Connect Back-Channel Logout)",
	"secevent+jwt":              "security event token (RFC 8417)",
	"jwt":                       "JWT of no particular kind, perhaps an ID token",
	"":                          "JWT without typ, perhaps an ID token",
}

// inspection is what a token says. None of it is verified.
type inspection struct {
	Verified bool           `json:"verified"` // false
	Kind     string         `json:"kind"`
	Refused  string         `json:"refused,omitempty"` // why servers refuse its form, whoever signed it
	Header   map[string]any `json:"header"`
	Claims   map[string]any `json:"claims,omitempty"` // none of an encrypted token
}

func inspectToken(out io.Writer, raw string, output outputFormat) error {
	seen, err := inspect(raw)
	if err != nil {
		return withHint(fmt.Errorf("not a JWT: %w", err), "a JWT looks like eyJ….eyJ….abc, without spaces or quotes")
	}
	if output == outputJSON {
		return json.NewEncoder(out).Encode(seen)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Nothing of this was verified: anybody can write such a token.\nkind: %s\n", visible(seen.Kind))
	if seen.Refused != "" {
		fmt.Fprintf(&text, "Its form is refused, whoever signed it: %s\n", visible(seen.Refused))
	}
	text.WriteString("\nheader\n")
	printMembers(&text, seen.Header)
	if seen.Claims != nil {
		text.WriteString("\nclaims\n")
		printMembers(&text, seen.Claims)
	}
	_, err = io.WriteString(out, text.String())
	return err
}

// inspect reads what can be read, also of tokens that are refused everywhere.
func inspect(raw string) (inspection, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 && len(parts) != 5 {
		return inspection{}, fmt.Errorf("it has %d parts divided by dots; a signed one has 3, an encrypted one 5", len(parts))
	}
	var seen inspection
	var err error
	if seen.Header, err = readPart(parts[0]); err != nil {
		return inspection{}, fmt.Errorf("its header %w", err)
	}
	if len(parts) == 5 { // RFC 7516 §7.1
		seen.Kind = "encrypted JWT; its claims are readable for its recipient only"
		return seen, nil
	}
	if seen.Claims, err = readPart(parts[1]); err != nil {
		return inspection{}, fmt.Errorf("its payload %w", err)
	}
	typ, _ := seen.Header["typ"].(string)
	kind, known := kinds[strings.TrimPrefix(strings.ToLower(typ), "application/")]
	if !known {
		kind = "typ " + typ + ", not known here"
	}
	seen.Kind = kind
	token, err := intake.Parse(raw)
	if err == nil {
		err = intake.Decode(token.Payload, new(map[string]any))
	}
	switch {
	case err != nil:
		seen.Refused = err.Error()
	case strings.EqualFold(token.Algorithm, "none"):
		seen.Refused = "it is not signed (alg none)"
	}
	return seen, nil
}

// readPart decodes one part leniently: with padding or without.
func readPart(part string) (map[string]any, error) {
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
	if err != nil {
		return nil, errors.New("is not base64url")
	}
	var members map[string]any
	decoder := json.NewDecoder(bytes.NewReader(decoded))
	decoder.UseNumber() // shown as it is written
	if err := decoder.Decode(&members); err != nil || members == nil {
		return nil, errors.New("is not a JSON object")
	}
	return members, nil
}

func printMembers(out *strings.Builder, members map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var value bytes.Buffer
		encoder := json.NewEncoder(&value)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(members[name]); err != nil {
			continue // what was decoded can be encoded
		}
		fmt.Fprintf(out, "  %-20s %s%s\n", visible(name), visible(strings.TrimSpace(value.String())), explainTime(name, members[name]))
	}
}

// visible replaces what a terminal would obey or hide: a token is anybody's text.
func visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

const mostSeconds = 253402300799 // the last second of the year 9999

// explainTime says when a NumericDate is (RFC 7519 §2).
func explainTime(name string, value any) string {
	number, ok := value.(json.Number)
	if !ok || !slices.Contains([]string{"iat", "exp", "nbf", "auth_time", "updated_at", "grant_exp"}, name) {
		return ""
	}
	seconds, err := number.Float64()
	if err != nil || seconds < 0 || seconds > mostSeconds {
		return "  not a time in seconds since 1970"
	}
	at := time.Unix(int64(seconds), 0)
	return "  " + at.UTC().Format(time.RFC3339) + ", " + distance(at, time.Now())
}
