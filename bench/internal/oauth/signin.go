package oauth

import (
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

var (
	signInForm  = regexp.MustCompile(`(?s)<form id="sign-in" method="post" action="([^"]*)">(.*?)</form>`)
	hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// FillIn signs in on authserver's page, as a browser without scripts does.
func FillIn(username, password string) func(*Client, *http.Response) (*http.Response, error) {
	return func(c *Client, page *http.Response) (*http.Response, error) {
		body, err := io.ReadAll(page.Body)
		page.Body.Close()
		if err != nil {
			return nil, err
		}
		form := signInForm.FindStringSubmatch(string(body))
		if form == nil {
			return nil, fmt.Errorf("%s is no page to sign in: %.300s", page.Request.URL.Path, body)
		}
		fields := url.Values{"username": {username}, "password": {password}}
		for _, field := range hiddenField.FindAllStringSubmatch(form[2], -1) {
			fields.Set(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
		}
		to, err := page.Request.URL.Parse(html.UnescapeString(form[1]))
		if err != nil {
			return nil, err
		}
		request, err := http.NewRequest(http.MethodPost, to.String(), strings.NewReader(fields.Encode()))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Sec-Fetch-Site", "same-origin")
		answer, err := c.http.Do(request)
		if err == nil && answer.StatusCode >= 400 {
			_, err = finish(answer)
			err = errors.Join(errors.New("signing in"), err)
		}
		return answer, err
	}
}
