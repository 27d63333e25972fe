package main

// peer is another authorization server, started on a port of loopback.
type peer struct {
	name  string
	needs string // the program in settings.tools
	start func(settings) (*contender, error)
}

var peers []peer
