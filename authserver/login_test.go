package authserver

import "testing"

func TestPagePolicy(t *testing.T) {
	for _, c := range []struct {
		page            Page
		styles, scripts string
		want            string
	}{
		{Page{}, "", "", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"},
		{Page{Targets: []string{"https://a.example"}, Frames: []string{"https://b.example"}}, "'sha256-a'", "'sha256-b'",
			"default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' https://a.example" +
				"; style-src 'sha256-a'; script-src 'sha256-b'; frame-src https://b.example"},
	} {
		if got := c.page.Policy(c.styles, c.scripts); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
