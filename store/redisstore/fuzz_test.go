package redisstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"authserver/store"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// answerer speaks as Redis does and answers whatever it is told to, once in each
// connection, after the commands with which the driver begins it.
type answerer struct{ answer []byte }

func (a *answerer) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer ours.Close()
		in := bufio.NewReader(ours)
		for {
			command, err := readCommand(in)
			if err != nil {
				return
			}
			switch strings.ToLower(command) {
			case "hello", "client":
				if _, err := io.WriteString(ours, "-ERR unknown command\r\n"); err != nil {
					return
				}
			default:
				ours.Write(a.answer)
				return // or the driver waits where it takes an answer for a part of one
			}
		}
	}()
	return theirs, nil
}

// readCommand reads an array of bulk strings and returns the first.
func readCommand(in *bufio.Reader) (name string, err error) {
	length := func(kind byte) (int, error) {
		line, err := in.ReadString('\n')
		if err != nil || line[0] != kind {
			return 0, errors.Join(err, errors.New("no command"))
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := length('*')
	for i := range n {
		size, err := length('$')
		if err != nil {
			return "", err
		}
		part := make([]byte, size+2)
		if _, err := io.ReadFull(in, part); err != nil {
			return "", err
		}
		if i == 0 {
			name = string(part[:size])
		}
	}
	return name, err
}

// shape makes an answer of bytes, well-formed in Redis's protocol: what is inside may
// be anything. The driver believes the lengths that it is told, so that those are true.
func shape(from *[]byte, depth int) []byte {
	next := func() byte {
		if len(*from) == 0 {
			return 0
		}
		b := (*from)[0]
		*from = (*from)[1:]
		return b
	}
	switch kind := next(); kind % 7 {
	case 1:
		return fmt.Appendf(nil, ":%d\r\n", int64(int8(next())))
	case 2, 3:
		text := make([]byte, min(int(next()), len(*from)))
		copy(text, *from)
		*from = (*from)[len(text):]
		return fmt.Appendf(nil, "$%d\r\n%s\r\n", len(text), text)
	case 4, 5:
		n := int(next() % 5)
		out := fmt.Appendf(nil, "*%d\r\n", n)
		for range n {
			if depth > 4 {
				out = append(out, "$-1\r\n"...)
				continue
			}
			out = append(out, shape(from, depth+1)...)
		}
		return out
	case 6:
		return []byte([]string{"-ERR no\r\n", "-NOSCRIPT no\r\n", "-MOVED 1 :1\r\n", "-ASK\r\n", "-LOADING\r\n", "+OK\r\n", "*-1\r\n", "-\r\n"}[next()%8])
	}
	return []byte("$-1\r\n")
}

// header is the beginning of a record.
func header(version byte) string {
	return "caller" + strings.Repeat("\x00", 5) + string(version) + strings.Repeat("\x00", 12)
}

// Whatever answers in place of Redis, or has written into it, is trouble: no crash, and
// never a decision that the answer does not say.
func FuzzAnswers(f *testing.F) {
	text := func(s string) string { return "\x02" + string(byte(len(s))) + s }
	for _, seed := range []string{
		"", "\x00", "\x01\x01", "\x01\x00", "\x01\x07", "\x06\x00", "\x06\x01", "\x06\x02", "\x06\x03", "\x06\x07", text("1"), text("1700000000000-0"), text("1-x"), "\x04\x00",
		"\x04\x01\x00", "\x04\x01" + text(header(1)+"value"), "\x04\x01" + text(header(0)+"value"), "\x04\x01" + text("short"), "\x04\x02\x00\x00", "\x04\x01\x01\x05", "\x04\x01\x04\x01\x00",
		"\x04\x03\x01\x01" + text(header(2)+"v") + "\x01\x05", "\x04\x03\x01\x00" + text(header(3)) + "\x01\x05", "\x04\x02\x01\x00" + text(header(1)), "\x04\x02\x01\x00\x00", "\x04\x01\x01\x01", "\x04\x03\x01\xff" + text("") + "\x01\x05", "\x04\x03\x01\x02" + text(header(2)) + "\x00",
		"\x04\x02" + text("0") + "\x04\x02" + text("member") + text("9999999999999"), "\x04\x02" + text("0") + "\x04\x02" + text("member") + text("soon"), "\x04\x02" + text("0") + "\x04\x02" + text("member") + text("caller\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff"), "\x04\x02" + text("0") + "\x04\x01" + text("member"),
		"\x04\x01\x04\x02" + text("authserver:l:log") + "\x04\x01\x04\x02" + text("5-1") + "\x04\x02" + text("e") + text("event"),
		"\x04\x01\x04\x02" + text("authserver:l:log") + "\x04\x01\x04\x02" + text("5-1") + "\x04\x02" + text("f") + text("event"),
		"\x04\x01\x04\x02" + text("authserver:l:log") + "\x04\x01\x04\x02" + text("x") + "\x04\x00",
	} {
		f.Add([]byte(seed))
	}
	logging.Disable() // the driver says of each answer that it does not like it
	f.Fuzz(func(t *testing.T, input []byte) {
		redisAnswers := &answerer{}
		redisAnswers.answer = shape(&input, 0)
		s := &Store{prefix: "authserver:", timeout: 20 * time.Second, client: withoutPanics(redis.NewClient(&redis.Options{
			Dialer: redisAnswers.dial, ContextTimeoutEnabled: true, DisableIdentity: true, MaxRetries: -1, DialerRetries: 1,
			ConnMaxLifetime:          time.Nanosecond, // the answerer has ended them
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}))}
		defer s.Close()
		ctx, answer := t.Context(), string(redisAnswers.answer)
		null := answer[2:] == "\r\n$-1\r\n" || answer[2:] == "\r\n*-1\r\n" || answer[2:] == "\r\n_\r\n" // after a length, which the driver takes of any kind
		if records, err := s.Get(ctx, "key"); err == nil && (len(records) != 1 || !records[0].Exists() && !null) {
			t.Errorf("%q: Get says %v", answer, records)
		}
		if err := s.Create(ctx, "key", []byte("value"), store.Forever); (err == nil) != (answer == ":1\r\n") || errors.Is(err, store.ErrExists) != (answer == ":0\r\n") {
			t.Errorf("%q: Create says %v", answer, err)
		}
		record, err := s.Swap(ctx, "key", 1, []byte("value"), store.Forever)
		if (err == nil || errors.Is(err, store.ErrConflict)) != record.Exists() {
			t.Errorf("%q: Swap says %v, %v", answer, record, err)
		}
		if errors.Is(err, store.ErrNotFound) && !strings.HasPrefix(answer, "*3\r\n:-1\r\n") {
			t.Errorf("%q: Swap says %v", answer, err)
		}
		records, err := s.Do(ctx, store.Batch{Create: []store.Creation{{Key: "key", Expires: store.Forever}}, Get: []string{"other"}})
		if (err == nil) != (len(records) == 1) || errors.Is(err, store.ErrExists) && !strings.HasPrefix(answer[2:], "\r\n:1\r\n") {
			t.Errorf("%q: Do says %v, %v", answer, records, err)
		}
		if n, err := s.Add(ctx, "counter", 1, time.Second); err == nil && answer != fmt.Sprintf(":%d\r\n", n) {
			t.Errorf("%q: Add says %d", answer, n)
		}
		for member, err := range s.Linked(ctx, "index", store.Member{}) {
			if err == nil && !strings.Contains(answer, "\r\n"+member.Name+"\r\n") {
				t.Errorf("%q: Linked says %q, %v", answer, member, err)
			}
		}
		if records, err := s.Get(ctx, store.MemberKey("family", "member")); err == nil && len(records) != 1 {
			t.Errorf("%q: Get says %v of a member", answer, records)
		}
		for member, err := range s.Members(ctx, "family") {
			if err == nil && (!member.Exists() || !strings.Contains(answer, "\r\n"+member.Name+"\r\n")) {
				t.Errorf("%q: Members says %v", answer, member)
			}
		}
		if position, err := s.Append(ctx, "log", []byte("event"), time.Hour); err == nil && position == 0 && !strings.Contains(answer, "0-0") {
			t.Errorf("%q: Append says %d", answer, position)
		}
		if events, err := s.Tail(ctx, "log", 0, 0); err == nil && len(events) > 0 && !strings.Contains(answer, "\r\ne\r\n") {
			t.Errorf("%q: Tail says %v", answer, events)
		}
	})
}
