package authserver_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"authserver/authserver/authservertest"
)

// ATTACKS HT-09: a request whose end two readers could see in different places is the
// last one of its connection, and what is behind it is not taken for another.
func TestAttackHT09(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	const smuggled = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	send := func(t *testing.T, request string) string {
		t.Helper()
		connection, err := net.Dial("tcp", strings.TrimPrefix(s.Issuer, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		connection.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(connection, "POST /token HTTP/1.1\r\nHost: localhost\r\n"+request)
		connection.(*net.TCPConn).CloseWrite()
		answers, err := io.ReadAll(connection)
		if err != nil {
			t.Error(err)
		}
		return string(answers)
	}
	for name, request := range map[string]string{
		"length and chunks":      "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks and length":      "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
		"chunks":                 "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"unknown encoding":       "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"two encodings":          "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"a list of encodings":    "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"space before the colon": "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"two lengths":            "Content-Length: 4\r\nContent-Length: 40\r\n\r\n",
		"signed length":          "Content-Length: +4\r\n\r\nabcd",
		"bare LF in a chunk":     "Transfer-Encoding: chunked\r\n\r\n4;a\nx\r\nabcd\r\n0\r\n\r\n",
		"two hosts":              "Host: other\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answers := send(t, request+smuggled)
			if strings.Count(answers, "HTTP/1.1 ") != 1 || !strings.HasPrefix(answers, "HTTP/1.1 4") && !strings.HasPrefix(answers, "HTTP/1.1 501") {
				t.Errorf("the answers are %q", answers)
			}
		})
	}
	// A folded line belongs to the one before (RFC 9112 section 5.2): there is no length in it.
	if answers := send(t, "X-A: b\r\n Content-Length: 46\r\n\r\n"+smuggled); strings.Count(answers, "HTTP/1.1 ") != 2 {
		t.Errorf("a folded line: %q", answers)
	}
}
