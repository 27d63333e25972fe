package authserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
)

// The operators' API: JSON over HTTP on a unix socket that only the server's own
// user and root may open (ListenAdmin). A call is POST /<noun>/<verb>. All go
// through one function, serveAdmin, which names the caller, decides, runs the call
// and writes the audit record. Nothing of it is reachable from a network.

// adminCalls are the calls by path. The file admin_<noun>.go has those of a noun.
func (s *Server) adminCalls() map[string]adminCall {
	return map[string]adminCall{
		"/client/list":          call(s.adminClientList),
		"/client/show":          call(s.adminClientShow),
		"/client/add":           call(s.adminClientAdd),
		"/client/secret":        call(s.adminClientSecret),
		"/client/disable":       call(s.adminClientDisable),
		"/client/enable":        call(s.adminClientEnable),
		"/client/remove":        call(s.adminClientRemove),
		"/user/list":            call(s.adminUserList),
		"/user/show":            call(s.adminUserShow),
		"/user/add":             call(s.adminUserAdd),
		"/user/password":        call(s.adminUserPassword),
		"/user/reset":           call(s.adminUserReset),
		"/user/disable":         call(s.adminUserDisable),
		"/user/enable":          call(s.adminUserEnable),
		"/user/remove":          call(s.adminUserRemove),
		"/grant/list":           call(s.adminGrantList),
		"/grant/revoke":         call(s.adminGrantRevoke),
		"/key/list":             call(s.adminKeyList),
		"/key/show":             call(s.adminKeyShow),
		"/key/plan":             call(s.adminKeyPlan),
		"/key/rotate":           call(s.adminKeyRotate),
		"/key/revoke":           call(s.adminKeyRevoke),
		"/key/import":           call(s.adminKeyImport),
		"/key/log":              call(s.adminKeyLog),
		"/key/algorithm/add":    call(s.adminKeyAlgorithmAdd),
		"/key/algorithm/retire": call(s.adminKeyAlgorithmRetire),
		"/key/rewrap":           call(s.adminKeyRewrap),
		"/token/show":           call(s.adminTokenShow),
		"/backup":               call(s.adminBackup),
	}
}

// adminCall runs a call. It fills in the audit record what the call is about.
type adminCall func(ctx context.Context, body []byte, record *adminRecord) (any, error)

// adminRecord is what is audited of a call, beside who called and how it ended.
type adminRecord struct {
	whom string // whom or what it was about
	why  string // the reason that the operator gave
}

// adminRequest is the body of a call.
type adminRequest interface {
	audited() adminRecord
}

// call makes an adminCall of a function from a request to an answer.
func call[In adminRequest, Out any](serve func(ctx context.Context, in In) (Out, error)) adminCall {
	return func(ctx context.Context, body []byte, record *adminRecord) (any, error) {
		var in In
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&in); err != nil {
			return nil, adminBadRequest("the request is not the JSON that this call takes: %v", err)
		}
		if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
			return nil, adminBadRequest("something follows the JSON of the request")
		}
		*record = in.audited()
		if len(record.why) > maxReason || strings.ContainsFunc(record.why, isControl) {
			return nil, adminBadRequest("a reason is one line of at most %d bytes", maxReason)
		}
		return serve(ctx, in)
	}
}

const (
	maxAdminBody = 256 << 10 // bytes
	maxReason    = 500       // bytes
)

// AdminHandler answers the operators' calls. It serves only connections whose
// peer it can name: those of AdminServer.
func (s *Server) AdminHandler() http.Handler {
	calls := s.adminCalls()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		answer, err := s.serveAdmin(w, r, calls)
		if err == nil {
			if _, written := answer.(adminStream); !written {
				writeJSON(w, http.StatusOK, answer)
			}
			return
		}
		if errors.Is(err, errStreamCut) {
			panic(http.ErrAbortHandler)
		}
		refusal := asAdminError(err)
		writeJSON(w, refusal.status, struct {
			Error *AdminError `json:"error"`
		}{refusal})
	})
}

// serveAdmin is the one way to every call.
func (s *Server) serveAdmin(w http.ResponseWriter, r *http.Request, calls map[string]adminCall) (answer any, err error) {
	caller, err := adminCaller(r.Context())
	var record adminRecord
	action := "unknown"
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in an operator's call", "action", action, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			answer, err = nil, errors.New("the call ended in a panic")
		}
		s.auditAdmin(r.Context(), caller, action, record, err)
	}()
	if err != nil {
		return nil, adminForbidden("the caller cannot be named: %v", err)
	}
	// Browsers send these with every request that a page makes. No operator does.
	for _, header := range []string{"Origin", "Referer", "Sec-Fetch-Site"} {
		if len(r.Header.Values(header)) > 0 {
			return nil, adminForbidden("requests of browsers are refused")
		}
	}
	if caller.UID != 0 && caller.UID != os.Geteuid() {
		return nil, adminForbidden("user %s may not operate this server; root and the user that it runs as may", caller.name())
	}
	run, known := calls[r.URL.Path]
	if !known {
		return nil, &AdminError{Code: "not_found", status: http.StatusNotFound, Message: "the server knows no such call",
			Hint: "use the command of the same version as the server"}
	}
	action = strings.ReplaceAll(strings.TrimPrefix(r.URL.Path, "/"), "/", " ")
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Method != http.MethodPost || mediaType != "application/json" {
		return nil, adminBadRequest("a call is a POST of application/json")
	}
	wait := r.URL.Query().Get("wait")
	if wait != "" && wait != waitEnforced {
		return nil, adminBadRequest("wait is %q; allowed is %s", wait, waitEnforced)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBody))
	if err != nil {
		return nil, adminBadRequest("the request cannot be read, or is larger than %d bytes", maxAdminBody)
	}
	answer, err = run(r.Context(), body, &record)
	if stream, is := answer.(adminStream); is && err == nil {
		return answer, sendStream(r.Context(), w, stream)
	}
	if err != nil || wait == "" {
		return answer, err
	}
	return s.waited(r.Context(), answer)
}

// auditAdmin writes the audit record of a call: who did what to whom, why, and how
// it ended.
func (s *Server) auditAdmin(ctx context.Context, caller adminPeer, action string, record adminRecord, err error) {
	level, result := slog.LevelInfo, "ok"
	attrs := []any{"event", "admin", "action", action, "uid", caller.UID, "user", caller.User, "pid", caller.PID}
	if record.whom != "" {
		attrs = append(attrs, "whom", record.whom)
	}
	if record.why != "" {
		attrs = append(attrs, "why", record.why)
	}
	if err != nil {
		refusal := asAdminError(err)
		level, result = slog.LevelWarn, refusal.Code
		attrs = append(attrs, "error", err.Error())
	}
	s.log.Log(ctx, level, "operator's call", append(attrs, "result", result)...)
}
