// Package browsertest drives a real Chromium in a test.
package browsertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"authserver/internal/timetest"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// Browser is a headless Chromium with one tab and a profile of its own. A method
// that cannot do what it says fails the test and shows where the tab is.
type Browser struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

// patience is how long one step may take: pages are drawn in milliseconds, but a
// machine may be busy.
const patience = 60 * time.Second

// New starts a browser that lives as long as the test.
func New(t testing.TB) *Browser {
	t.Helper()
	return start(t, newProfile(t))
}

// newProfile makes a directory that goes with the test. What Chromium has started may
// outlive it for a moment, and write into the directory while it is removed.
func newProfile(t testing.TB) string {
	t.Helper()
	profile, err := os.MkdirTemp("", "browsertest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		timetest.AwaitNil(t, func() error { return os.RemoveAll(profile) })
	})
	return profile
}

// NewWithoutCookies starts a browser whose user has blocked all cookies.
func NewWithoutCookies(t testing.TB) *Browser {
	t.Helper()
	profile := newProfile(t)
	preferences := filepath.Join(profile, "Default", "Preferences")
	if err := os.MkdirAll(filepath.Dir(preferences), 0o700); err != nil {
		t.Fatal(err)
	}
	const blocked = `{"profile":{"default_content_setting_values":{"cookies":2}}}`
	if err := os.WriteFile(preferences, []byte(blocked), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, profile)
}

// start starts a browser with a profile.
func start(t testing.TB, profile string) *Browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("no Chromium found: `make test` installs it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.IgnoreCertErrors,
		// It asks for nothing but the test's own servers. Names under .test are this
		// machine, so that a test can have several sites.
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-domain-reliability", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // its sandbox refuses to run as root
	}
	allocated, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	return openTab(t, allocated)
}

// Tab opens another tab of the browser: the same cookies, another page.
func (b *Browser) Tab() *Browser {
	b.t.Helper()
	return openTab(b.t, b.ctx)
}

// openTab opens a tab in the browser of a context, and the browser if there is none yet.
func openTab(t testing.TB, parent context.Context) *Browser {
	t.Helper()
	ctx, cancelTab := chromedp.NewContext(parent)
	t.Cleanup(func() { chromedp.Cancel(ctx); cancelTab() })
	b := &Browser{t: t, ctx: ctx}
	// The first step is in the context in which the browser is to live.
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("opening a tab: %v", err)
	}
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// note takes down what the browser complains about. The status of an answer is
// the test's to judge.
func (b *Browser) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *log.EventEntryAdded:
		if event.Entry.Level == log.EntryLevelError && event.Entry.Source != log.EntrySourceNetwork {
			b.problems = append(b.problems, fmt.Sprintf("%s: %s", event.Entry.URL, event.Entry.Text))
		}
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, event.ExceptionDetails.Text)
	}
}

// Problems returns what the browser has complained about since the last call:
// violations of a Content-Security-Policy, errors in scripts.
func (b *Browser) Problems() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	problems := b.problems
	b.problems = nil
	return problems
}

// Quiet fails the test for each problem.
func (b *Browser) Quiet(t testing.TB) {
	t.Helper()
	for _, problem := range b.Problems() {
		t.Errorf("the browser says: %s", problem)
	}
}

func (b *Browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v; the tab is %s; the browser says %q", what, err, b.where(), b.Problems())
	}
}

func ask[T any](b *Browser, what string, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	answer, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("%s: %v; the tab is %s", what, err, b.where())
	}
	return answer
}

// where says which page the tab shows.
func (b *Browser) where() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	page, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + ": " + document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return page
}

// Open goes to a URL.
func (b *Browser) Open(url string) {
	b.t.Helper()
	b.do("opening "+url, chromedp.Navigate(url))
}

// Back presses the back button, and waits until the element that a CSS selector names
// is there, on another page than this one. The browser may have kept that page and show
// it without loading it again; then Type and Click find nothing on it, but Press does.
func (b *Browser) Back(then string) {
	b.t.Helper()
	leaving := fmt.Sprintf("%q", rand.Text()) // no page that the browser has kept is called so
	Evaluate[int](b, fmt.Sprintf("window.leaving = %s, setTimeout(() => history.back())", leaving))
	b.await("going back to "+then, fmt.Sprintf("window.leaving !== %s && %s", leaving, shown(then)))
}

// Press clicks by a script on the element that a CSS selector names, and waits until
// the element that another one names, which this page does not have, is there.
func (b *Browser) Press(selector, then string) {
	b.t.Helper()
	b.lacks(then)
	Evaluate[int](b, fmt.Sprintf("setTimeout(() => document.querySelector(%q).click())", selector))
	b.Wait(then)
}

// Type writes text into the input that a CSS selector names, in place of what is there.
// chromedp's own Clear and SendKeys race with each other for the attributes of the input.
func (b *Browser) Type(selector, text string) {
	b.t.Helper()
	b.do("looking for "+selector, chromedp.WaitVisible(chromedp.CSS(selector)))
	Evaluate[bool](b, fmt.Sprintf("(input => { input.focus(); input.select(); return true })(document.querySelector(%q))", selector))
	b.do("typing into "+selector, chromedp.KeyEvent(text))
}

// Click clicks on the element that a CSS selector names, and waits until the element
// that another one names, which this page does not have, is there: on the next page, say.
func (b *Browser) Click(selector, then string) {
	b.t.Helper()
	b.lacks(then)
	b.do("clicking on "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
	b.Wait(then)
}

// Wait waits for the element that a CSS selector names, on a page that has come to its
// end: before, what follows the element may be missing, and what precedes it may move.
func (b *Browser) Wait(selector string) {
	b.t.Helper()
	b.await("waiting for "+selector, shown(selector))
}

// shown is a JavaScript expression: the page is whole and has an element.
func shown(selector string) string {
	return fmt.Sprintf(`document.readyState === "complete" && document.querySelector(%q) !== null`, selector)
}

// await waits until a JavaScript expression is true, on this page or a later one.
func (b *Browser) await(what, expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression)) // fails while the page changes
		cancel()
		if err == nil && is {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: %v; the tab is %s; the browser says %q", what, err, b.where(), b.Problems())
		}
	}
}

// lacks fails the test when the page has an element: who waits for it after a click
// would take this page for the next one.
func (b *Browser) lacks(selector string) {
	b.t.Helper()
	if Evaluate[bool](b, fmt.Sprintf("document.querySelector(%q) !== null", selector)) {
		b.t.Fatalf("%s is there before the click; wait for what only comes after it; the tab is %s", selector, b.where())
	}
}

// Text returns the visible text of the page.
func (b *Browser) Text() string {
	b.t.Helper()
	return ask(b, "reading the page", chromedp.Evaluate[string](`document.body.innerText`))
}

// URL returns where the tab is.
func (b *Browser) URL() string {
	b.t.Helper()
	return ask(b, "reading the location", chromedp.Location())
}

// Evaluate returns the value of a JavaScript expression; of a promise, what it
// comes to.
func Evaluate[T any](b *Browser, expression string) T {
	b.t.Helper()
	return ask(b, "evaluating "+expression, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// Look sets the width of the screen in pixels and the colour scheme, light or dark.
func (b *Browser) Look(width int64, scheme string) {
	b.t.Helper()
	metrics := emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width < 600}
	if _, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, metrics); err != nil {
		b.t.Fatal(err)
	}
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, media); err != nil {
		b.t.Fatal(err)
	}
}

// Screenshot returns a picture of the whole page, as PNG.
func (b *Browser) Screenshot() []byte {
	b.t.Helper()
	return ask(b, "taking a picture", chromedp.FullScreenshot(100))
}

// Forget removes all cookies.
func (b *Browser) Forget() {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, storage.ClearCookies, storage.ClearCookiesParams{}); err != nil {
		b.t.Fatal(err)
	}
}

// AddAuthenticator plugs a virtual authenticator into the browser that holds
// passkeys and whose user is always there. Whether it can verify him, by a PIN or a
// fingerprint, is what verifies says: if it can, it does.
func (b *Browser) AddAuthenticator(verifies bool) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, webauthn.Enable, webauthn.EnableParams{}); err != nil {
		b.t.Fatal(err)
	}
	options := webauthn.VirtualAuthenticatorOptions{Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: verifies, IsUserVerified: verifies, AutomaticPresenceSimulation: true}
	if _, err := chromedp.Call(b.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &options}); err != nil {
		b.t.Fatal(err)
	}
}
