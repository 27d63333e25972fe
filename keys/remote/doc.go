// Package remote lets a process of its own keep the private keys: a server of the
// keys.Backend of its choice on a unix socket, and a keys.Backend that asks it.
//
// A vendor's PKCS #11 library crashes only the process that loads it, authserver
// needs no cgo and no rebuilding for a key management service, and the PIN or the
// service's credentials are where the internet is not. Whoever may open the socket
// may sign: it is of mode 0600, in a directory of the user that both run as.
//
// The protocol is one POST for each method of keys.Backend, and one for Sign, with
// JSON in both directions; protocol.go has all of it.
package remote
