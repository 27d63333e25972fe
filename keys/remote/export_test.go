package remote

var NewServer = newServer
