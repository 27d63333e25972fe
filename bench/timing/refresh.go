package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"authserver/bench/internal/process"
)

const (
	otherClient = "other"
	shortest    = time.Minute // that a refresh token can be made to live
	mayDiffer   = 300 * time.Microsecond
)

// compareRefreshes compares how long refresh tokens take to be refused that nobody issued,
// whose grant was revoked, that have expired, and that another client has (ATTACKS LG-07).
func compareRefreshes(binary string, each int) error {
	brief := "tokens: {refresh_idle: " + shortest.String() + "}\n"
	i, err := process.Install(binary, process.Options{More: brief,
		Clients: "{client_id: " + otherClient + ", client_secret: " + process.Secret + ", grant_types: [password, refresh_token], scope: \"profile orders:read\"}"})
	if err != nil {
		return err
	}
	defer i.Remove()
	p, err := i.Start()
	if err != nil {
		return err
	}
	defer func() { p.Stop() }()
	made := time.Now()
	expired, err := refreshToken(i, process.ClientID)
	if err != nil {
		return err
	}
	p.Stop()
	name := filepath.Join(i.Directory, "authserver.yaml")
	config, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(config), brief, "", 1)), 0o600); err != nil {
		return err
	}
	if p, err = i.Start(); err != nil {
		return err
	}
	revoked, err1 := refreshToken(i, process.ClientID)
	foreign, err2 := refreshToken(i, otherClient)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := ended(i, revoked); err != nil {
		return err
	}
	time.Sleep(time.Until(made.Add(shortest + 2*time.Second)))
	dot := strings.LastIndexByte(revoked, '.')
	kinds := []struct{ what, token string }{
		{"nobody's", revoked[:dot+1] + strings.Repeat("A", len(revoked)-dot-1)}, {"revoked", revoked}, {"expired", expired}, {"another client's", foreign},
	}
	taken := make([][]time.Duration, len(kinds))
	for n := range each + 100 {
		for k, kind := range kinds {
			began := time.Now()
			answer, err := post(i, "/token", process.ClientID, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {kind.token}})
			if err != nil {
				return err
			}
			if answer.Error != "invalid_grant" {
				return fmt.Errorf("a token that is %s: %q", kind.what, answer.Error)
			}
			if n >= 100 {
				taken[k] = append(taken[k], time.Since(began))
			}
		}
	}
	var medians []time.Duration
	for k, kind := range kinds {
		slices.Sort(taken[k])
		medians = append(medians, taken[k][each/2])
		fmt.Printf("median of %d refusals of a refresh token that is %s: %v\n", each, kind.what, medians[k])
	}
	if difference := slices.Max(medians) - slices.Min(medians); difference >= mayDiffer {
		return fmt.Errorf("why a refresh token is refused shows in the time: by %v", difference)
	}
	return nil
}

type answer struct {
	Error   string `json:"error"`
	Refresh string `json:"refresh_token"`
}

func post(i *process.Installation, path, client string, form url.Values) (a answer, err error) {
	request, err := http.NewRequest(http.MethodPost, i.Base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return a, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(client, process.Secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && len(body) > 0 {
		err = json.Unmarshal(body, &a)
	}
	return a, err
}

func refreshToken(i *process.Installation, client string) (string, error) {
	a, err := post(i, "/token", client, url.Values{"grant_type": {"password"}, "username": {process.Username}, "password": {process.Password}, "scope": {"profile orders:read"}})
	if err == nil && a.Refresh == "" {
		err = fmt.Errorf("no refresh token: %q", a.Error)
	}
	return a.Refresh, err
}

func ended(i *process.Installation, token string) error {
	a, err := post(i, "/revoke", process.ClientID, url.Values{"token": {token}})
	if err == nil && a.Error != "" {
		err = fmt.Errorf("revoking: %q", a.Error)
	}
	return err
}
