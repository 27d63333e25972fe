// Package authserver is the authorization server: an http.Handler made by New
// from a Config.
//
// A token request goes one way (token.go):
//
//	parse form → authenticate the client → grants[grant_type].Authorize
//	  → one atomic store operation → Authorization → issue → JSON
//
// A grant sees no HTTP and returns a decision; only issue signs; one function
// writes answers and one writes refusals (request.go). The tables in server.go
// list every endpoint, grant and client authentication method. To add one, write
// one file and add one line to its table; metadata follows by itself.
package authserver
