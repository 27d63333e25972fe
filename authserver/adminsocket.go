package authserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	osuser "os/user"
	"strconv"
	"syscall"
	"time"
)

// maxSocketPath is what every system takes as the path of a unix socket, in bytes.
const maxSocketPath = 103

// ErrAdminInUse says that a running server has the admin socket already.
var ErrAdminInUse = errors.New("another running server has the admin socket")

// AdminListener is the admin socket of a running server.
type AdminListener struct {
	*net.UnixListener
	lock *os.File
}

// ListenAdmin opens the admin socket at path, with mode 0600. What a server that
// died has left there is replaced; with a server that is running it returns
// ErrAdminInUse. Which of the two it is, a lock on path+".lock" tells, which ends
// with its process however that ends.
func ListenAdmin(path string) (*AdminListener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path of the admin socket %s has %d bytes, a socket can have %d", path, len(path), maxSocketPath)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the admin socket: %w", err)
	}
	listener, err := listenLocked(path, lock)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &AdminListener{listener, lock}, nil
}

func listenLocked(path string, lock *os.File) (*net.UnixListener, error) {
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s", ErrAdminInUse, path)
	} else if err != nil {
		return nil, fmt.Errorf("locking the admin socket: %w", err)
	}
	present, err := os.Lstat(path)
	if err == nil && present.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is in the place of the admin socket and is none", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the admin socket of a server that died: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("opening the admin socket: %w", err)
	}
	// Until here the socket may be open to others. The funnel refuses them by their
	// user, and nobody is served yet.
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("closing the admin socket to others: %w", err)
	}
	return listener, nil
}

// Close removes the socket.
func (l *AdminListener) Close() error { return errors.Join(l.UnixListener.Close(), l.lock.Close()) }

// AdminServer returns the HTTP server of the admin socket, to be run on a listener
// of ListenAdmin.
func (s *Server) AdminServer() *http.Server {
	return &http.Server{
		Handler:           s.AdminHandler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       10 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext:       namePeer,
	}
}

// adminPeer is the process at the other end of the admin socket, as the system
// names it.
type adminPeer struct {
	UID  int
	PID  int    // 0 where the system does not tell
	User string // name of UID, if it has one
}

func (p adminPeer) name() string {
	if p.User == "" {
		return strconv.Itoa(p.UID)
	}
	return p.User
}

type peerKey struct{}

// namedPeer is what namePeer found out.
type namedPeer struct {
	adminPeer
	err error
}

// namePeer keeps the peer of a connection in its context.
func namePeer(ctx context.Context, connection net.Conn) context.Context {
	named := namedPeer{adminPeer: adminPeer{UID: -1}}
	socket, isUnix := connection.(*net.UnixConn)
	if !isUnix {
		named.err = errors.New("the connection is not one of a unix socket")
	} else if named.adminPeer, named.err = peerOf(socket); named.err == nil {
		if account, err := osuser.LookupId(strconv.Itoa(named.UID)); err == nil {
			named.User = account.Username
		}
	}
	return context.WithValue(ctx, peerKey{}, named)
}

// adminCaller returns the peer of the connection that a request came by.
func adminCaller(ctx context.Context) (adminPeer, error) {
	named, known := ctx.Value(peerKey{}).(namedPeer)
	if !known {
		return adminPeer{UID: -1}, errors.New("the connection is not one of the admin socket")
	}
	return named.adminPeer, named.err
}
