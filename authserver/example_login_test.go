package authserver_test

import (
	"fmt"
	"html/template"
	"net/http"
	"net/http/httptest"

	"authserver/authserver"
)

// tersePages draws every page by one template that knows nothing but forms: all that
// a Login has to do.
type tersePages struct{}

// tersePage is what all pages come down to here.
type tersePage struct {
	Says   string
	Form   authserver.Form
	Inputs []string           // names of inputs
	Either []string           // values of a button named decision
	More   []*authserver.Form // forms without inputs
	Next   string
}

var terse = template.Must(template.New("").Parse(`<h1>{{.Says}}</h1>
{{define "fields"}}{{range .Fields}}<input type="hidden" name="{{.Name}}" value="{{.Value}}">{{end}}{{end -}}
{{if .Form.Action}}<form method="post" action="{{.Form.Action}}">{{template "fields" .Form}}
{{range .Inputs}}<label>{{.}} <input name="{{.}}"></label>
{{end}}{{range .Either}}<button name="decision" value="{{.}}">{{.}}</button>{{else}}<button>OK</button>{{end}}</form>
{{end}}{{range .More}}{{if .}}<form method="post" action="{{.Action}}">{{template "fields" .}}<button>OK</button></form>{{end}}{{end -}}
{{with .Next}}<a href="{{.}}">Go on</a>{{end}}`))

func (tersePages) write(w http.ResponseWriter, common authserver.Page, page tersePage) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", common.Policy("", ""))
	w.WriteHeader(common.Status)
	terse.Execute(w, page)
}

func (p tersePages) SignIn(w http.ResponseWriter, _ *http.Request, m authserver.SignInPage) {
	p.write(w, m.Page, tersePage{Says: "Who is there? " + string(m.Notice), Form: m.Form, Inputs: []string{"username", "password"}, More: []*authserver.Form{m.Continue}})
}

func (p tersePages) SecondFactor(w http.ResponseWriter, _ *http.Request, m authserver.SecondFactorPage) {
	p.write(w, m.Page, tersePage{Says: "And? " + string(m.Notice), Form: m.Form, Inputs: []string{"code"}})
}

func (p tersePages) Consent(w http.ResponseWriter, _ *http.Request, m authserver.ConsentPage) {
	p.write(w, m.Page, tersePage{Says: "May " + m.Client.Name + "?", Form: m.Form, Either: []string{"allow", "deny"}})
}

func (p tersePages) Account(w http.ResponseWriter, _ *http.Request, m authserver.AccountPage) {
	page := tersePage{Says: "You are " + m.User.Name, More: []*authserver.Form{&m.SignOut, m.AddTOTP, m.RenewCodes}}
	for _, app := range m.Apps {
		page.More = append(page.More, &app.End)
	}
	for _, session := range m.Sessions {
		page.More = append(page.More, &session.End)
	}
	p.write(w, m.Page, page)
}

func (p tersePages) EnrolTOTP(w http.ResponseWriter, _ *http.Request, m authserver.EnrolTOTPPage) {
	p.write(w, m.Page, tersePage{Says: "Type " + m.Secret + " into your app", Form: m.Form, Inputs: []string{"code"}})
}

func (p tersePages) RecoveryCodes(w http.ResponseWriter, _ *http.Request, m authserver.RecoveryCodesPage) {
	p.write(w, m.Page, tersePage{Says: fmt.Sprint("Keep ", m.Codes), Next: m.Home})
}

func (p tersePages) ConfirmLogout(w http.ResponseWriter, _ *http.Request, m authserver.ConfirmLogoutPage) {
	p.write(w, m.Page, tersePage{Says: "Leave?", Form: m.Form, Either: []string{"sign_out", "stay"}})
}

func (p tersePages) SignedOut(w http.ResponseWriter, _ *http.Request, m authserver.SignedOutPage) {
	p.write(w, m.Page, tersePage{Says: "Bye", Next: m.Next}) // without front-channel logout, which needs iframes
}

func (p tersePages) FormPost(w http.ResponseWriter, _ *http.Request, m authserver.FormPostPage) {
	p.write(w, m.Page, tersePage{Says: "On to " + m.Client.Name, Form: authserver.Form{Action: m.Action, Fields: m.Fields}})
}

func (p tersePages) Error(w http.ResponseWriter, _ *http.Request, m authserver.ErrorPage) {
	p.write(w, m.Page, tersePage{Says: "No: " + string(m.Kind) + " " + m.Detail, Next: m.Next})
}

// To have wholly different pages, implement Login and put it into Config.Login.
// TestReplacedPages signs in with these.
func ExampleLogin() {
	var pages authserver.Login = tersePages{}
	config := authserver.Config{Issuer: "https://auth.example.com", Login: pages}

	w := httptest.NewRecorder()
	config.Login.SignIn(w, httptest.NewRequest("GET", "/login", nil), authserver.SignInPage{
		Page: authserver.Page{Status: http.StatusOK},
		Form: authserver.Form{Action: "/login", Fields: []authserver.Field{{Name: "interaction", Value: "…"}}},
	})
	fmt.Println(w.Body)
	// Output:
	// <h1>Who is there? </h1>
	// <form method="post" action="/login"><input type="hidden" name="interaction" value="…">
	// <label>username <input name="username"></label>
	// <label>password <input name="password"></label>
	// <button>OK</button></form>
}
