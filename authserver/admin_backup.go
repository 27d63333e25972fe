package authserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// adminStream is an answer that is not JSON: it is written as it comes. A connection
// that is cut before its end says that it failed.
type adminStream func(ctx context.Context, w io.Writer) error

// errStreamCut is a stream that failed after its beginning.
var errStreamCut = errors.New("the answer was cut short")

// sendStream answers with a stream.
func sendStream(ctx context.Context, w http.ResponseWriter, stream adminStream) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := stream(ctx, patientWriter{w}); err != nil {
		return fmt.Errorf("%w: %w", errStreamCut, err)
	}
	return nil
}

// patientWriter gives the reader time for each piece, and not for the whole.
type patientWriter struct{ w http.ResponseWriter }

const adminPieceWithin = 30 * time.Second

func (p patientWriter) Write(b []byte) (int, error) {
	if err := http.NewResponseController(p.w).SetWriteDeadline(time.Now().Add(adminPieceWithin)); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}

// backupRequest asks for a backup of the embedded store.
type backupRequest struct {
	File string `json:"file"` // where the caller puts it, for the audit record
}

func (r backupRequest) audited() adminRecord { return adminRecord{whom: r.File} }

func (s *Server) adminBackup(_ context.Context, _ backupRequest) (adminStream, error) {
	if s.backup == nil {
		return nil, adminRefusal(http.StatusConflict, "conflict", "the store is Redis, which makes its own backups").
			hint("copy its append-only files or its dump; see docs/operating.md")
	}
	return s.backup, nil
}
