package authserver

import (
	"encoding/base32"
	"strings"
	"testing"
	"time"
)

// RFC 6238 appendix B, of which we use the last six digits.
func TestTOTPVectors(t *testing.T) {
	secret := []byte("12345678901234567890")
	for at, want := range map[int64]string{59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924",
		2000000000: "69279037", 20000000000: "65353130"} {
		now := time.Unix(at, 0)
		if got := totpCode(secret, stepAt(now)); got != want[2:] {
			t.Errorf("at %d: %s, want %s", at, got, want[2:])
		}
		for seconds, accepted := range map[int64]bool{-61: false, -30: true, 0: true, 30: true, 61: false} {
			if _, ok := matchTOTP(secret, want[2:], now.Add(time.Duration(seconds)*time.Second)); at+seconds >= 0 && ok != accepted {
				t.Errorf("%d seconds from %d: %t", seconds, at, ok)
			}
		}
	}
	for _, code := range []string{"", "28708", "2870822", "94287082", "28708a"} {
		if _, ok := matchTOTP(secret, code, time.Unix(59, 0)); ok {
			t.Errorf("%q is accepted", code)
		}
	}
	uri := totpURI("auth.example.com:8443", "a b?&", secret)
	if uri != "otpauth://totp/auth.example.com:8443:a%20b%3F&?issuer=auth.example.com%3A8443&secret="+strings.TrimRight(base32.StdEncoding.EncodeToString(secret), "=") {
		t.Error(uri)
	}
}

func TestRecoveryCodes(t *testing.T) {
	codes, hashes := newRecoveryCodes()
	seen := make(map[string]bool)
	for i, code := range codes {
		if len(code) != 14 || seen[code] || recoveryHash(strings.ToUpper(strings.ReplaceAll(code, "-", " "))) != hashes[i] || strings.Contains(hashes[i], code) {
			t.Errorf("%s %s", code, hashes[i])
		}
		seen[code] = true
	}
	if len(codes) != recoveryCodes || recoveryHash("") == recoveryHash("a") {
		t.Error(codes)
	}
}

func TestDevice(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0":                                                                  "Firefox Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0":           "Edge Windows",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1": "Safari iPhone",
		"Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36":                            "Chrome Android",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36":                   "Chrome Mac",
		"curl/8.5.0": " ",
		"":           " ",
	} {
		if browser, system := device(agent); browser+" "+system != want {
			t.Errorf("%s: %s %s", agent, browser, system)
		}
	}
}
