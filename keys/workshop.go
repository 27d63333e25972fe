package keys

import "log/slog"

// workshop makes keys in the background that take long, one of an algorithm at a
// time. A nil workshop makes none of them.
type workshop struct {
	done   chan product
	busy   map[string]bool     // by algorithm
	stock  map[string]material // by algorithm: for the next step only
	failed error

	patient bool // waits for all of them instead
}

type product struct {
	algorithm string
	material  material
	err       error
}

func newWorkshop() *workshop {
	return &workshop{
		done: make(chan product, len(algorithms)), // each fits in, so that no maker waits
		busy: make(map[string]bool), stock: make(map[string]material),
	}
}

// get returns a new key, or orders it and returns false.
func (w *workshop) get(a algorithm) (material, bool, error) {
	if !a.slow || w != nil && w.patient {
		made, err := a.make()
		return made, err == nil, err
	}
	if w == nil {
		return material{}, false, nil
	}
	if made, ok := w.stock[a.name]; ok {
		delete(w.stock, a.name)
		return made, true, nil
	}
	if err := w.failed; err != nil {
		w.failed = nil
		return material{}, false, err
	}
	if !w.busy[a.name] {
		w.busy[a.name] = true
		go func() {
			made, err := a.make()
			w.done <- product{a.name, made, err}
		}()
	}
	return material{}, false, nil
}

// take puts a finished key into stock.
func (w *workshop) take(p product) {
	delete(w.busy, p.algorithm)
	if p.err != nil {
		w.failed = p.err
		return
	}
	w.stock[p.algorithm] = p.material
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
