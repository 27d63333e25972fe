// Package interop has relying parties that are made with the OpenID Connect clients
// people use, and a test that takes each of them through a whole sign-in: discovery,
// the pages, the code, the ID token, userinfo and a refresh.
//
// Each of them listens on a port of its own, which it prints, at /login and /callback,
// and answers the callback with JSON: the claims of the ID token and of userinfo,
// and whether a refresh succeeded.
package interop
