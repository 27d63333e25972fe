package keys

import "log/slog"

// workshop makes keys in the background that take long, one for a ring at a time.
// A nil workshop makes none of them.
type workshop struct {
	done   chan product
	busy   map[string]bool     // by ring
	stock  map[string]material // by ring: for the next step only
	failed error

	patient bool // waits for all of them instead
}

type product struct {
	ring     string
	material material
	err      error
}

func newWorkshop() *workshop {
	return &workshop{
		done: make(chan product, len(algorithms)+1), // one for each ring fits in, so that no maker waits
		busy: make(map[string]bool), stock: make(map[string]material),
	}
}

// get returns a new key for a ring, or orders it and returns false.
func (w *workshop) get(ring string, slow bool, generate func() (material, error)) (material, bool, error) {
	if !slow || w != nil && w.patient {
		made, err := generate()
		return made, err == nil, err
	}
	if w == nil {
		return material{}, false, nil
	}
	if made, ok := w.stock[ring]; ok {
		delete(w.stock, ring)
		return made, true, nil
	}
	if err := w.failed; err != nil {
		w.failed = nil
		return material{}, false, err
	}
	if !w.busy[ring] {
		w.busy[ring] = true
		go func() {
			made, err := generate()
			w.done <- product{ring, made, err}
		}()
	}
	return material{}, false, nil
}

// take puts a finished key into stock.
func (w *workshop) take(p product) {
	delete(w.busy, p.ring)
	if p.err != nil {
		w.failed = p.err
		return
	}
	w.stock[p.ring] = p.material
}

// discard throws away what no ring wanted any more.
func (w *workshop) discard() {
	if w != nil {
		clear(w.stock)
	}
}

// trouble logs errors of a loop when they begin, change and end, not every time.
type trouble struct {
	log    *slog.Logger
	last   string
	lapsed bool
}

func (t *trouble) tell(err error, leased bool) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != t.last && err != nil {
		t.log.Error("the key set cannot be followed", slog.Any("error", err))
	}
	if t.last != "" && err == nil {
		t.log.Info("the key set is followed again")
	}
	if !leased && !t.lapsed {
		t.log.Error("nothing is signed until the key set can be read again")
	}
	t.last, t.lapsed = text, !leased
}
