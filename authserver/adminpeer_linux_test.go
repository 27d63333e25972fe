package authserver_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// Another user of the machine is refused, even if the socket's mode lets him in.
func TestAdminOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	o := operate(t, nil)
	if info, err := os.Stat(o.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket's mode: %v %v", info.Mode(), err)
	}
	os.Chmod(filepath.Dir(o.socket), 0o755)
	dial := func() (connection net.Conn, err error) {
		done := make(chan struct{})
		go func() { // on a thread of its own, which ends with it
			defer close(done)
			runtime.LockOSThread()
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
				err = errno
				return
			}
			connection, err = net.Dial("unix", o.socket)
		}()
		<-done
		return connection, err
	}
	if _, err := dial(); err == nil {
		t.Error("another user could open the socket")
	}
	if err := os.Chmod(o.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }}}
	defer client.CloseIdleConnections()
	response, err := client.Post("http://authserver/client/list", "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if status, code := read(t, response, nil); status != http.StatusForbidden || code != "forbidden" {
		t.Errorf("another user: %d %s", status, code)
	}
	if !strings.Contains(o.log.String(), `"uid":65534`) {
		t.Error("the refusal is not audited with its caller")
	}
}
