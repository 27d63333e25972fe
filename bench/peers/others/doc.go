// Package others holds the peers that can share one module: each is a command in a
// folder of its own. ory/fosite needs older versions of what they need.
package others
