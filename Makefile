# make run: a real Envoy, the services and the vLLM simulator on this machine.
# make test: every test. `make help` lists the other targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup run test test-alerts test-api test-drills check format generate dashboards test-dashboards istio-fields lock wheels dist render test-faults test-recompute test-matrix test-mesh test-standard test-vllm test-h2spec test-s3 test-clients test-console screenshots test-focus test-sso \
  monitoring soak bench bench-peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make the environment from the locked dependencies

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 15) else "Headgate needs Python 3.11 to 3.14; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

HEADGATE_DEMO ?= .demo
run: setup ## one box with the simulator behind it, and a console with a made-up month
	@mkdir -p $(HEADGATE_DEMO)
	@exec $(BIN)/headgate up --demo --database-dir $(HEADGATE_DEMO)/database --api 127.0.0.1:8082 --operator-token-file $(HEADGATE_DEMO)/operator-token

test: setup ## every test that needs no GPU and no network
	$(BIN)/pytest -n 3 --dist loadfile

test-faults: setup ## the fault campaign with outages of 30 s, and what each one let in
	HEADGATE_FAULT_S=30 $(BIN)/pytest -q -s tests/campaign tests/identity/test_outage.py \
	  tests/ledger/test_kills.py tests/ledger/test_full_disk.py tests/ledger/test_steps.py \
	  tests/ledger/notices

test-recompute: setup ## a month of a million records against a script that knows only raw lines and the policy
	HEADGATE_RECOMPUTE_RECORDS=1000000 $(BIN)/pytest -q -o timeout=3600 tests/ledger/showback/test_recompute.py

test-standard: setup ## the end-to-end cases and the fault campaign on the standard path (`make test` runs them on the lean one)
	HEADGATE_TEST_PATH=standard $(BIN)/pytest -n 2 --dist loadfile tests/envoy tests/matrix/test_counted_in_proxy.py tests/campaign

test-vllm: setup ## the end-to-end cases against a real vLLM on CPU
	PYTHON=$(PYTHON) tests/vllm/run

# Istio's tags are no Go versions: this is the newest commit that the Go module proxy serves, shortly before 1.31.0.
ISTIO := v0.0.0-20260827124520-eed52ebb66ad
HEADGATE_ISTIO_BIN ?= $(CURDIR)/.mesh/bin
export HEADGATE_ISTIO_BIN
ISTIO_TOOLS := $(HEADGATE_ISTIO_BIN)/pilot-discovery $(HEADGATE_ISTIO_BIN)/istioctl

test-mesh: setup $(ISTIO_TOOLS) ## the files of istio/ on a real istiod and a real Envoy (needs Go and Prometheus; builds for some minutes the first time)
	HEADGATE_TEST_MESH=1 $(BIN)/pytest tests/mesh

$(HEADGATE_ISTIO_BIN)/pilot-discovery: ISTIO_PACKAGE = pilot/cmd/pilot-discovery
$(HEADGATE_ISTIO_BIN)/istioctl: ISTIO_PACKAGE = istioctl/cmd/istioctl
$(ISTIO_TOOLS):
	@command -v go >/dev/null || { echo "make test-mesh needs Go 1.26 or newer, to build istiod" >&2; exit 1; }
	GOBIN=$(HEADGATE_ISTIO_BIN) GOFLAGS=-buildvcs=false go install istio.io/istio/$(ISTIO_PACKAGE)@$(ISTIO)

H2SPEC := v2.2.1+incompatible
HEADGATE_H2SPEC ?= $(CURDIR)/.h2spec/h2spec

test-h2spec: setup $(HEADGATE_H2SPEC) ## h2spec, the HTTP/2 conformance suite, against our gRPC server (needs Go to build it)
	$(BIN)/python -m tests.grpc_server.h2spec $(HEADGATE_H2SPEC)

$(HEADGATE_H2SPEC):
	@command -v go >/dev/null || { echo "make test-h2spec needs Go, to build h2spec" >&2; exit 1; }
	GOBIN=$(dir $@) GOFLAGS=-buildvcs=false go install github.com/summerwind/h2spec/cmd/h2spec@$(H2SPEC)

VERSITYGW := v1.8.0
HEADGATE_S3_SERVER ?= $(CURDIR)/.s3/versitygw

test-s3: setup $(HEADGATE_S3_SERVER) ## the agent of adapters and a real S3 server (needs Go to build it)
	HEADGATE_S3_SERVER=$(HEADGATE_S3_SERVER) $(BIN)/pytest -q tests/adapters/on_s3.py

$(HEADGATE_S3_SERVER):
	@command -v go >/dev/null || { echo "make test-s3 needs Go, to build VersityGW" >&2; exit 1; }
	GOBIN=$(dir $@) GOFLAGS=-buildvcs=false go install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW)

HEADGATE_CLIENTS ?= $(CURDIR)/.clients
test-clients: setup $(HEADGATE_CLIENTS)/.ready ## the official Python and Node clients at a limit (needs Node 20 and npm)
	HEADGATE_CLIENTS=$(HEADGATE_CLIENTS) $(BIN)/pytest tests/clients

$(HEADGATE_CLIENTS)/.ready: tests/clients/node/package-lock.json
	mkdir -p $(HEADGATE_CLIENTS)
	cp tests/clients/node/package.json tests/clients/node/package-lock.json $(HEADGATE_CLIENTS)
	npm ci --prefix $(HEADGATE_CLIENTS) --no-audit --no-fund
	@touch $@

# Chromium: `apt-get install chromium` on Debian; CHROMIUM=PATH names any other Chrome or Chromium.
HEADGATE_BROWSER ?= $(CURDIR)/.browser
export HEADGATE_BROWSER
test-console: setup $(HEADGATE_BROWSER)/.ready ## the console in a real Chromium, with axe-core (needs Chromium, Node 20 and npm)
	$(BIN)/pytest -q -s tests/console/in_browser.py

screenshots: setup $(HEADGATE_BROWSER)/.ready ## write the pictures of docs/console/ again (needs what test-console needs)
	mkdir -p $(HEADGATE_BROWSER)/shots
	HEADGATE_SHOTS=$(HEADGATE_BROWSER)/shots $(BIN)/pytest -q -s tests/console/in_browser.py -k every_page
	for name in showback-light-desk overview-light-desk budgets-dark-desk refused-dark-desk; do cp $(HEADGATE_BROWSER)/shots/$$name.png docs/console/; done

$(HEADGATE_BROWSER)/.ready: tests/console/browser/package-lock.json
	mkdir -p $(HEADGATE_BROWSER)
	cp tests/console/browser/package.json tests/console/browser/package-lock.json $(HEADGATE_BROWSER)
	npm ci --prefix $(HEADGATE_BROWSER) --no-audit --no-fund
	@touch $@

# The validator's NumPy has wheels for 3.12 and for no newer Python.
FOCUS_PYTHON ?= python3.12
HEADGATE_FOCUS ?= $(CURDIR)/.focus
test-focus: setup $(HEADGATE_FOCUS)/.ready ## the FOCUS export and the official validator of the FinOps Foundation (needs Python 3.12)
	HEADGATE_FOCUS=$(HEADGATE_FOCUS) $(BIN)/pytest -q tests/ledger/showback/by_validator.py

$(HEADGATE_FOCUS)/.ready: tests/ledger/showback/validator.lock
	@$(FOCUS_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' || { echo "make test-focus needs Python 3.12. Name one with: make test-focus FOCUS_PYTHON=PATH" >&2; exit 1; }
	$(FOCUS_PYTHON) -m venv --clear $(HEADGATE_FOCUS)
	$(HEADGATE_FOCUS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

KEYCLOAK := 26.7.3
KEYCLOAK_DIST := org.keycloak:keycloak-quarkus-dist:$(KEYCLOAK):zip
HEADGATE_KEYCLOAK ?= $(CURDIR)/.keycloak/keycloak-$(KEYCLOAK)
test-sso: setup $(HEADGATE_KEYCLOAK)/bin/kc.sh ## tokens of a real Keycloak (needs Maven, and Java 21 or newer)
	HEADGATE_KEYCLOAK=$(HEADGATE_KEYCLOAK) $(BIN)/pytest tests/sso

$(HEADGATE_KEYCLOAK)/bin/kc.sh:
	@command -v mvn >/dev/null || { echo "make test-sso needs Maven, to get Keycloak" >&2; exit 1; }
	mvn -q -B dependency:copy -Dartifact=$(KEYCLOAK_DIST) -DoutputDirectory=$(CURDIR)/.keycloak
	cd $(CURDIR)/.keycloak && unzip -q keycloak-quarkus-dist-$(KEYCLOAK).zip

API_EXAMPLES ?= 30
test-api: setup ## schemathesis on the OpenAPI document of the management API, at most API_EXAMPLES requests of each kind
	HEADGATE_API_EXAMPLES=$(API_EXAMPLES) $(BIN)/pytest tests/management/conformance.py

test-alerts: setup ## the alerts of a mesh and of one box, and their tests, by Prometheus' promtool
	$(BIN)/python -m tests.istio.alerts.run

HEADGATE_MONITORING ?= $(CURDIR)/.monitoring
PROMETHEUS ?= prometheus
PROMETHEUS_ADDRESS ?= 127.0.0.1:9090
ADMIN ?= 127.0.0.1:8081
monitoring: setup ## a Prometheus with the alerts for the box whose admin port is ADMIN, on PROMETHEUS_ADDRESS (needs Prometheus)
	@command -v $(PROMETHEUS) >/dev/null || { echo "make monitoring needs Prometheus; name it with PROMETHEUS=PATH" >&2; exit 1; }
	@mkdir -p $(HEADGATE_MONITORING)
	sed 's/127.0.0.1:8081/$(ADMIN)/' examples/monitoring/prometheus.yml > $(HEADGATE_MONITORING)/prometheus.yml
	$(BIN)/python examples/monitoring/rules.py $(HEADGATE_MONITORING)/rules.yml
	exec $(PROMETHEUS) --config.file=$(HEADGATE_MONITORING)/prometheus.yml --storage.tsdb.path=$(HEADGATE_MONITORING)/data --web.listen-address=$(PROMETHEUS_ADDRESS)

JOBS ?= 4
test-drills: setup ## incidents on a real box, and what its pager tells of each (25 minutes; needs Prometheus and Alertmanager); DRILLS="store-away flood" chooses, JOBS=1 plays one at a time
	$(BIN)/python -m tests.istio.alerts.run
	$(BIN)/pytest tests/drills/first_page.py
	$(BIN)/python -m tests.drills --write --jobs $(JOBS) $(DRILLS)

dashboards: setup ## write the Grafana dashboards of istio/ and examples/ again
	$(BIN)/python -m dashboards

test-dashboards: setup ## every panel and every query of KEDA on a real Prometheus, fed by a real box
	$(BIN)/pytest tests/dashboards/on_prometheus.py

SOAK_MINUTES ?= 30
SOAK_RATE ?= 200
SOAK_PATH ?= lean
soak: setup ## load a whole fleet for SOAK_MINUTES at SOAK_RATE requests a second on SOAK_PATH while parts of it fail, and compare all accounts
	$(BIN)/python -m tests.soak --minutes $(SOAK_MINUTES) --rate $(SOAK_RATE) --path $(SOAK_PATH)

bench: setup ## measure what the limits promise; BENCH="overshoot limits" chooses, JSON=FILE keeps the figures
	$(BIN)/python -m bench $(BENCH) $(if $(JSON),--json $(JSON))

bench-peers: setup ## Headgate beside plain Envoy and its peers, in turns; STACKS="plain standard ratelimit" chooses (builds peers into .peers/)
	$(BIN)/python -m bench.peers $(STACKS) --rounds $(or $(ROUNDS),5) --write docs/benchmarks.md

test-matrix: setup ## every cell of tests/matrix after each event (`make test` leaves out some events of several choices)
	HEADGATE_MATRIX=full $(BIN)/pytest -n auto --maxprocesses 2 --dist loadfile tests/matrix

check: setup ## format, lint, strict types, import contract, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m protos.generate --check
	$(BIN)/python -m dashboards --check

PLACED := llama-8b llama-70b qwen-8b lora
RENDER := $(BIN)/headgate render istio
render: setup ## write the EnvoyFilters of istio/ again
	$(RENDER) > istio/components/gateway/envoyfilters.yaml
	$(RENDER) --counting extproc > istio/components/extproc-counting/envoyfilters.yaml
	$(RENDER) --path lean > istio/components/lean/envoyfilters.yaml
	$(RENDER) --attach sidecar > istio/components/sidecar/envoyfilters.yaml
	$(RENDER) --attach waypoint > istio/components/waypoint/envoyfilters.yaml
	$(BIN)/headgate render placement $(PLACED:%=--service %.vllm.svc.cluster.local:8000) > istio/components/placement/envoyfilters.yaml
	$(BIN)/headgate render placement --attach waypoint --service llama-8b.vllm.svc.cluster.local:8000 > istio/components/placement-waypoint/envoyfilters.yaml

format: setup ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: setup ## compile protos/ into headgate/_gen
	$(BIN)/python -m protos.generate

istio-fields: setup ## write headgate/istio_check/fields.json from the CRDs of Istio (needs Go)
	$(BIN)/python -m istio.crds.generate $(ISTIO)

LOCK = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
  --no-header --no-emit-index-url --no-annotate --quiet

lock: ## pin the dependencies again (needs uv and the network)
	$(LOCK) --extra onebox --group dev -o requirements.lock
	$(LOCK) --extra onebox --constraints requirements.lock -o requirements.onebox.lock
	$(LOCK) --constraints requirements.lock -o requirements.serve.lock
	uv pip compile tests/ledger/showback/validator.in --universal --python-version 3.12 --generate-hashes \
	  --no-header --no-emit-index-url --no-annotate --quiet -o tests/ledger/showback/validator.lock
	@$(MAKE) wheels

wheels: setup ## list the wheel of each locked package for each platform (needs the network)
	$(BIN)/python -m release.wheels

dist: setup ## build the wheel, the source distribution and the bills of materials into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python -m release.sbom dist

clean: ## remove the environment, caches and dist/ (not .mesh/ and .vllm/)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
