package authservertest

import (
	"encoding/base64"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever kind of secret goes in or out, the watch finds it in the log, and nothing else.
func TestSecretWatch(t *testing.T) {
	const token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
	for secret, logged := range map[string]string{
		"the-password-1": "the-password-1", "pass word & more": "pass word & more", "the-code-of-it": `{"code":"the-code-of-it"}`,
		"basic-secret-1": "basic web:basic-secret-1", token: "cause: token " + token, "signature": "c2lnbmF0dXJlLW9mLXRoZS10b2tlbg",
		"cookie-secret": "cookie-secret", "redirected-code": "/callback?code=redirected-code", "": "sid-of-the-session web orders:read https://client.example.com",
	} {
		w := newSecretWatch()
		log := w.logger(slog.DiscardHandler)
		h := w.handler(http.HandlerFunc(func(writer http.ResponseWriter, r *http.Request) {
			io.ReadAll(r.Body)
			r.URL.RawQuery = ""
			log.Debug(logged)
			http.SetCookie(writer, &http.Cookie{Name: "session", Value: "sid-of-the-session.cookie-secret"})
			writer.Header().Set("Location", "https://client.example.com/callback?code=redirected-code")
			io.WriteString(writer, `{"access_token":"`+token+`"}`)
		}))
		r := httptest.NewRequest("POST", "/token", strings.NewReader("password=the-password-1&new_password=pass+word+%26+more&code=the-code-of-it&scope=orders:read&client_id=web-client-id"))
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("web:basic-secret-1")))
		h.ServeHTTP(httptest.NewRecorder(), r)
		if found := w.found(); (len(found) > 0) != (secret != "") {
			t.Errorf("%q: %q", secret, found)
		}
	}
}

// So it does of what goes through a transport.
func TestSecretsOfATransport(t *testing.T) {
	const token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, r *http.Request) {
		http.SetCookie(writer, &http.Cookie{Name: "session", Value: "sid-of-the-session.cookie-secret"})
		io.WriteString(writer, `{"access_token":"`+token+`"}`)
	}))
	defer server.Close()
	secrets := NewSecrets()
	secrets.Add("a file", "key-of-a-file")
	r, err := http.NewRequest("POST", server.URL, strings.NewReader("password=the-password-1&client_id=web-client-id"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("web-client-id", "basic-secret-1")
	response, err := (&http.Client{Transport: secrets.Watch(http.DefaultTransport)}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(response.Body)
	response.Body.Close()
	for _, secret := range []string{"key-of-a-file", "the-password-1", "basic-secret-1", "cookie-secret", token} {
		if found := secrets.In("msg=x " + secret + " y"); len(found) == 0 {
			t.Errorf("%s is not found", secret)
		}
	}
	if found := secrets.In("web-client-id sid-of-the-session"); len(found) > 0 {
		t.Errorf("%q", found)
	}
}
