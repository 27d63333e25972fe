# make test is the one command: it sets up what the tests need and runs them all.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 30s
VENV := .cache/venv
REQUIREMENTS := resource-example/flask/requirements.txt

.PHONY: test setup lint build fuzz clean

test: setup lint
	AUTHSERVER_TEST_PYTHON="$(CURDIR)/$(VENV)/bin/python" go test -race -count=1 ./...

# Each line installs something where it is missing, by the machine's package manager.
setup: $(VENV)/ready
	@command -v redis-server >/dev/null || ./.ci/install redis-server redis
	@command -v curl >/dev/null || ./.ci/install curl curl

$(VENV)/ready: $(REQUIREMENTS)
	@command -v python3 >/dev/null || ./.ci/install python3 python3
	@python3 -m venv --clear $(VENV) 2>/dev/null || { ./.ci/install python3-venv python3; python3 -m venv --clear $(VENV); }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	@touch $@

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not formatted with gofmt:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

# A static binary without symbols.
build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/authserver ./cmd/authserver

# Every fuzz target for FUZZTIME.
fuzz:
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r package; do \
	  grep -ho '^func Fuzz[A-Za-z0-9]*' "$$package"/*_test.go | cut -c6- | while read -r target; do \
	    go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
	  done; \
	done

clean:
	rm -rf bin .cache
