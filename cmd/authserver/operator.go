package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"authserver/authserver"

	"github.com/spf13/cobra"
)

const maxAnswer = 16 << 20 // bytes of an answer of the server

// operator is how a command talks to the running server: over its admin socket.
type operator struct {
	command *cobra.Command
	socket  string
	config  string
	yes     bool
	wait    bool                    // until what ends is enforced at every verifier
	waited  *authserver.Enforcement // what came of that
	output  *outputFormat
}

// operated makes a command one that talks to the running server and prints data.
func operated(command *cobra.Command) *operator {
	o := &operator{command: command, output: outputFlag(command)}
	command.Flags().StringVar(&o.socket, "socket", "", "the server's admin socket (admin.sock in its data directory)")
	command.Flags().StringVar(&o.config, "config", "", "the server's configuration file, which names the data directory (authserver.yaml if it exists)")
	return o
}

// breaking adds --yes and --wait to a command that breaks or ends something.
func (o *operator) breaking() *operator {
	o.command.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	o.command.Flags().BoolVar(&o.wait, "wait", false, "return when it is enforced at every verifier, and say at how many")
	return o
}

// path returns the path of the admin socket.
func (o *operator) path() (string, error) {
	if o.socket != "" {
		return o.socket, nil
	}
	config, _, err := loadConfig(o.config, os.Environ())
	if err != nil {
		return "", withHint(err, "mend the configuration, or name the server's admin socket with --socket")
	}
	return adminSocket(config.Data), nil
}

// call calls the server. answer may be nil; nothing of what it held stays in it.
func (o *operator) call(path string, request, answer any) error {
	if o.wait && !strings.HasSuffix(path, "/show") && !strings.HasSuffix(path, "/list") {
		path += "?wait=enforced"
	}
	var content bytes.Buffer
	ctx, cancel := context.WithTimeout(o.command.Context(), time.Minute)
	defer cancel()
	if err := o.stream(ctx, path, request, &content); err != nil || answer == nil {
		return err
	}
	reflect.ValueOf(answer).Elem().SetZero()
	var waited struct {
		Enforced *authserver.Enforcement `json:"enforced"`
	}
	if err := errors.Join(json.Unmarshal(content.Bytes(), answer), json.Unmarshal(content.Bytes(), &waited)); err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	o.waited = waited.Enforced
	return nil
}

// stream calls the server and copies its answer. To memory, it takes maxAnswer of it.
func (o *operator) stream(ctx context.Context, path string, request any, into io.Writer) error {
	socket, err := o.path()
	if err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://authserver"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking the server: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return unreachable(socket, err)
	}
	defer response.Body.Close()
	answer := io.Reader(response.Body)
	if _, inMemory := into.(*bytes.Buffer); inMemory {
		answer = io.LimitReader(answer, maxAnswer)
	}
	if response.StatusCode != http.StatusOK {
		return refusalOf(response, socket)
	}
	if _, err := io.Copy(into, answer); err != nil {
		return fmt.Errorf("copying the server's answer: %w", err)
	}
	return nil
}

// refusalOf is the error that the server answered.
func refusalOf(response *http.Response, socket string) error {
	var refusal struct{ Error authserver.AdminError }
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	if json.Unmarshal(content, &refusal) != nil || refusal.Error.Message == "" {
		return fmt.Errorf("%s answered %s, and not as an authserver does", socket, response.Status)
	}
	if refusal.Error.Hint == "" {
		return errors.New(refusal.Error.Message)
	}
	return withHint(errors.New(refusal.Error.Message), "%s", refusal.Error.Hint)
}

// unreachable says why the server could not be asked.
func unreachable(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return withHint(fmt.Errorf("no server is running at %s", socket),
			"start one with authserver serve, or name the one you mean: --socket for its admin socket, --config for its configuration")
	case errors.Is(err, fs.ErrPermission):
		return withHint(fmt.Errorf("%s may not be opened by this user", socket), "run the command as the user that the server runs as, or as root")
	}
	return withHint(fmt.Errorf("asking the server at %s: %w", socket, err), "the server's log tells whether the command had an effect")
}

// print writes an answer: as JSON, or as text writes it.
func (o *operator) print(answer any, text func(w io.Writer)) error {
	out := o.command.OutOrStdout()
	if *o.output == outputJSON {
		if o.waited != nil {
			answer = struct {
				Answer   any                     `json:"answer"`
				Enforced *authserver.Enforcement `json:"enforced"`
			}{answer, o.waited}
		}
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return errors.Join(encoder.Encode(answer), o.unknown())
	}
	buffered := bufio.NewWriter(out)
	text(buffered)
	if o.waited != nil && o.waited.Error == "" {
		fmt.Fprintln(buffered, printable(o.waited.String()))
	}
	return errors.Join(buffered.Flush(), o.unknown())
}

// unknown is the failure of --wait when nobody can say where what was done is enforced.
func (o *operator) unknown() error {
	if o.waited == nil || o.waited.Error == "" {
		return nil
	}
	return errors.New(printable(o.waited.Error))
}

// table writes rows in columns.
func table(w io.Writer, rows ...[]string) {
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if row[i] = printable(cell); cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(columns, strings.Join(row, "\t"))
	}
	columns.Flush()
}

// printable is text that does nothing to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// when writes a time of the API, in seconds since 1970.
func when(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05Z")
}
