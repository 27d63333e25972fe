package browsertest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Each step waits for the page that it leads to, and for the end of that page: what the
// next step looks at is neither the page before nor half of one.
func TestStepsWaitForTheNextPage(t *testing.T) {
	slow := make(chan struct{}, 1) // one for each page that is to come late
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "no-store")
		pause := time.Duration(0) // of the page, not of the test
		select {
		case <-slow:
			pause = 300 * time.Millisecond
		default:
		}
		time.Sleep(pause)
		name := r.URL.Path[1:]
		next := map[string]string{"": "one", "one": "two", "two": ""}[name]
		fmt.Fprintf(w, `<!doctype html><link rel="icon" href="data:,"><script>onunload = () => {} // or the browser would keep it</script><p id="here">page %q</p><p id="at%s"></p>`, name, name)
		w.(http.Flusher).Flush()
		time.Sleep(pause)
		fmt.Fprintf(w, `<a href="/%s">on</a><p>end of %q</p>`, next, name)
	}))
	t.Cleanup(server.Close)
	b := New(t)
	expect := func(name string) {
		t.Helper()
		if text := b.Text(); !strings.Contains(text, fmt.Sprintf("page %q", name)) || !strings.Contains(text, fmt.Sprintf("end of %q", name)) {
			t.Errorf("at %q: %s", name, text)
		}
	}
	b.Open(server.URL)
	expect("")
	slow <- struct{}{}
	b.Click("a", "#atone")
	expect("one")
	slow <- struct{}{}
	b.Press("a", "#attwo")
	expect("two")
	slow <- struct{}{}
	b.Back("#here") // which both pages have
	expect("one")
	b.Open(server.URL)
	expect("")

	watched := &fatal{TB: t}
	b.t = watched
	for name, step := range map[string]func(){"Click": func() { b.Click("a", "#here") }, "Press": func() { b.Press("a", "#here") }} {
		watched.said = ""
		ended := make(chan struct{})
		go func() { defer close(ended); step() }()
		if <-ended; !strings.Contains(watched.said, "#here is there before the click") {
			t.Errorf("%s waits for what the page has already: %q", name, watched.said)
		}
	}
	b.t = t
	b.Quiet(t)
}

// fatal keeps what a test would end with.
type fatal struct {
	testing.TB
	said string
}

func (f *fatal) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
