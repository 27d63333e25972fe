package keys

import "sync/atomic"

// usage counts what a key was used for on this instance. It is handed on from
// snapshot to snapshot and gone with the key.
type usage struct{ signed, verified atomic.Uint64 }
