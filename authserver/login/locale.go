package login

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"authserver/authserver"

	languages "golang.org/x/text/language"
)

// catalogues are the languages, the default first. To add one, write its file and
// one line here.
var catalogues = []*messages{&english, &german}

func newMatcher() languages.Matcher {
	var tags []languages.Tag
	for _, catalogue := range catalogues {
		tags = append(tags, languages.MustParse(catalogue.Language))
	}
	return languages.NewMatcher(tags)
}

const maxLocales = 256 // bytes of a wish for languages that are looked at

// language chooses the messages: by ui_locales, then by Accept-Language. Nothing
// is kept of what was asked for.
func (p *Pages) language(r *http.Request, page authserver.Page) *messages {
	cut := func(s string) string { return s[:min(len(s), maxLocales)] }
	wishes := append(strings.Fields(cut(page.UILocales)), cut(r.Header.Get("Accept-Language")))
	_, index := languages.MatchStrings(p.matcher, wishes...)
	return catalogues[index]
}

// plural is a message that counts something: one %d of it, or several.
type plural struct{ One, Other string }

func (t *messages) count(p plural, n int) string {
	form := p.Other
	if n == 1 {
		form = p.One
	}
	return strings.ReplaceAll(form, "%d", strconv.Itoa(n))
}

// Ago says how long ago something was; after a month, on which day.
func (t *messages) Ago(at time.Time) string {
	age := time.Since(at)
	switch {
	case age < time.Minute:
		return t.JustNow
	case age < time.Hour:
		return t.count(t.MinutesAgo, int(age/time.Minute))
	case age < 24*time.Hour:
		return t.count(t.HoursAgo, int(age/time.Hour))
	case age < 31*24*time.Hour:
		return t.count(t.DaysAgo, int(age/(24*time.Hour)))
	}
	return t.day(at.UTC())
}

// Wait says how long to wait, rounded up.
func (t *messages) Wait(d time.Duration) string {
	if d <= 90*time.Second {
		return t.count(t.Seconds, max(int((d+time.Second-1)/time.Second), 1))
	}
	return t.count(t.Minutes, int((d+time.Minute-1)/time.Minute))
}

// Left says how many recovery codes are left.
func (t *messages) Left(n int) string { return t.count(t.CodesLeft, n) }

// Notice is the text of a notice.
func (t *messages) Notice(n authserver.Notice) string { return t.Notices[n] }

// Done reports whether a notice is of something that went well.
func (t *messages) Done(n authserver.Notice) bool {
	switch n {
	case authserver.NoticePasswordSet, authserver.NoticeSessionEnded, authserver.NoticeAppEnded,
		authserver.NoticeFactorAdded, authserver.NoticeFactorRemoved:
		return true
	}
	return false
}

// Describe returns the words for a scope: the operator's in this language or in
// the default one, ours for the standard scopes, or its name.
func (t *messages) Describe(s authserver.ScopeView) string {
	for _, tag := range []string{t.Language, catalogues[0].Language} {
		if text := s.Description[tag]; text != "" {
			return text
		}
	}
	if text := t.Scopes[s.Name]; text != "" {
		return text
	}
	return s.Name
}

// Device names a browser and its system.
func (t *messages) Device(s authserver.SessionView) string {
	switch {
	case s.Browser != "" && s.System != "":
		return strings.NewReplacer("%browser", s.Browser, "%system", s.System).Replace(t.BrowserOnSystem)
	case s.Browser != "" || s.System != "":
		return s.Browser + s.System
	}
	return t.UnknownDevice
}

// Initial is the first letter of a name.
func (t *messages) Initial(name string) string {
	for _, r := range name {
		return strings.ToUpper(string(r))
	}
	return ""
}
