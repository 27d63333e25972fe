package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"authserver/bench/internal/process"
)

// clockFile names, to a server that withClocks has built, the file that holds by how many
// seconds its clock is wrong: 12 characters.
const clockFile = "AUTHSERVER_TEST_CLOCK"

// withClocks builds the server, whose source is as it is, with a standard library whose
// wall clock is off by what a file says at each moment. A server of Go asks the kernel for
// the time by itself, so that libfaketime, which stands before the C library, has no say.
func withClocks(module, directory string) (binary string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	changed := string(text)
	for from, to := range map[string]string{
		"\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {": "\tsec, nsec, mono := runtimeNow()\n\tsec += wrong()\n\tif mono == 0 {",
		"\t_ \"unsafe\"": "\t\"syscall\"\n\t\"unsafe\"",
	} {
		if strings.Count(changed, from) != 1 {
			return "", fmt.Errorf("the standard library's time.go has no %q, or several", from)
		}
		changed = strings.Replace(changed, from, to, 1)
	}
	changed += `
var wrongFile = func() int {
	name, _ := syscall.Getenv("` + clockFile + `")
	file, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("` + clockFile + `: " + err.Error())
	}
	return file
}()

func wrong() (seconds int64) {
	var text [12]byte
	// Raw, since the scheduler asks for the time, too.
	n, _, _ := syscall.RawSyscall6(syscall.SYS_PREAD64, uintptr(wrongFile), uintptr(unsafe.Pointer(&text)), uintptr(len(text)), 0, 0, 0)
	if int(n) != len(text) {
		panic("the clock's file cannot be read")
	}
	for _, digit := range text[1:] {
		seconds = 10*seconds + int64(digit-'0')
	}
	if text[0] == '-' {
		return -seconds
	}
	return seconds
}
`
	other, overlay := filepath.Join(directory, "time.go"), filepath.Join(directory, "overlay.json")
	binary = filepath.Join(directory, "authserver")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{source: other}})
	if err != nil {
		return "", err
	}
	for name, content := range map[string][]byte{other: []byte(changed), overlay: replace} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return "", err
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-overlay", overlay, "-o", binary, "./cmd/authserver")
	build.Dir = module
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building a server with clocks: %w: %s", err, output)
	}
	return binary, nil
}

// clock is the file of one process's clock.
type clock string

// set makes the clock wrong by so much.
func (c clock) set(off time.Duration) error {
	file, err := os.OpenFile(string(c), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintf(file, "%+012d", int64(off.Seconds())) // over what is there, at once
	return err
}

// accessLife is for how long access tokens live where clocks are moved: longer than a
// history, and shorter than what a clock may be wrong by.
const accessLife = 200 * time.Second

// timepiece is what I11 is seen by: a token that has expired, and a grant that lives.
type timepiece struct {
	expired, refresh string
}

// newTimepiece has an instance issue tokens with a clock that is as wrong as it may be.
func (w *world) newTimepiece() error {
	i := w.instances[0]
	alice := &person{number: probes, world: w, history: newHistory(0, w.scenario.name, w.scenario.window)}
	form := url.Values{"grant_type": {"password"}, "username": {process.Username}, "password": {process.Password}, "scope": {"orders:read"}}
	if err := i.clock.set(-accessLife - 20*time.Second); err != nil {
		return err
	}
	expired := alice.post(i, "/token", form)
	if err := i.clock.set(0); err != nil {
		return err
	}
	lives := alice.post(i, "/token", form)
	if expired.Status != http.StatusOK || lives.Status != http.StatusOK {
		return fmt.Errorf("tokens of different times: %d and %d", expired.Status, lives.Status)
	}
	w.timepiece = &timepiece{expired.Body.Access, lives.Body.Refresh}
	return nil
}

// probes is the number of the person who looks what time it is; those who live have lower ones.
const probes = 100

// jump puts the clock of an instance wrong until it has noticed, and right again. It may
// take a second to notice; nobody asks it for anything before, and then it accepts
// nothing that has expired, and refuses nothing for good that lives (I11).
func (w *world) jump(h *history, i *instance, off, last time.Duration) {
	i.avoided.Store(true)
	defer i.avoided.Store(false)
	time.Sleep(longestCall + 500*time.Millisecond)
	said, err := os.ReadFile(i.log())
	if err == nil {
		err = i.clock.set(off)
	}
	if err == nil { // that it is not ready may have other reasons
		err = process.Await(func() error {
			says, err := os.ReadFile(i.log())
			if err == nil && !bytes.Contains(says[len(said):], []byte("the clocks of this machine and of the store differ")) {
				err = errors.New("its log does not say so")
			}
			return err
		}, 20*time.Second)
	}
	if err != nil {
		h.violation(11, "instance %d does not notice that its clock is %s off: %v", i.number, off, err)
	}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		w.probe(h, i, off)
		if time.Since(began) > last {
			break
		}
	}
	i.clock.set(0)
	if err := i.await(http.StatusOK); err != nil {
		h.violation(11, "instance %d, whose clock was %s off, is not ready again: %v", i.number, off, err)
	}
	if err := process.Await(func() error { // else it would be repeated after the retry window
		a := w.probe(h, i, off)
		if a.decision() {
			w.timepiece.refresh = a.Body.Refresh
			return nil
		}
		return errors.New("no decision")
	}, 20*time.Second); err != nil {
		h.violation(11, "instance %d, whose clock was %s off, answers nothing: %v", i.number, off, err)
	}
}

// probe shows an instance the token that has expired and that of the grant that lives.
func (w *world) probe(h *history, i *instance, off time.Duration) answer {
	alice := &person{number: probes, world: w, history: h}
	if a := alice.post(i, "/introspect", url.Values{"token": {w.timepiece.expired}}); a.Status != 0 {
		if h.watched(11); a.Body.Active {
			h.violation(11, "a token that has expired is active at instance %d, whose clock is or was %s off", i.number, off)
		}
	}
	a := alice.post(i, "/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {w.timepiece.refresh}})
	if a.Status != 0 {
		if h.watched(11); a.Status == http.StatusBadRequest {
			h.violation(11, "a grant that lives is refused at instance %d, whose clock is or was %s off", i.number, off)
		}
	}
	return a
}

// ofClocks are the faults of the clock of a server.
func ofClocks(h *history) (faults []fault) {
	const year = 365 * 24 * time.Hour
	for _, jump := range []struct {
		name string
		off  time.Duration
	}{{"an hour ahead", time.Hour}, {"an hour behind", -time.Hour}, {"ten years ahead", 10 * year}, {"ten years behind", -10 * year}} {
		faults = append(faults, fault{"clock of a server " + jump.name, func(w *world, i *instance, last time.Duration) { w.jump(h, i, jump.off, last) }})
	}
	return faults
}
