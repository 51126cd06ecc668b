# Everything starts here, and needs only make and Python 3.11 or newer. `make` alone lists what there is. ARGS
# are handed on: make test ARGS="-k publish".

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STUBS := clients/python

WORKERS ?= 2# tests mostly wait for disks: two at a time take half the time, and 0 is without processes of their own
PYTHON ?= # which Python makes the venv; empty: the first that is new enough

.DEFAULT_GOAL := help
.PHONY: help run test lint protos protos-go protos-node client-node baseline demo bench wheel requirements clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(READY) ## run the broker, with its own PostgreSQL and Valkey unless told of others
	@exec $(BIN)/python -m eventbroker_server

test: $(READY) ## run all tests
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup $(ARGS)

lint: $(READY) ## check style, types, floors, protos and the Dockerfile
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy server clients/python/eventbroker_client clients/python/eventbroker_cli clients/python/eventbroker_pytest tests
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against protos/baseline.binpb
	$(BIN)/hadolint Dockerfile

protos: $(READY) ## regenerate the Python stubs from protos/
	@find $(STUBS)/eventbroker -name '*_pb2*.py*' -delete
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I protos \
	  --python_out=$(STUBS) --mypy_out=quiet:$(STUBS) $$(find protos -name '*.proto' | sort)
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I protos \
	  --grpc_python_out=$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $$(find protos -name '*_service.proto' | sort)

protos-go: $(READY) ## regenerate the Go stubs from protos/; needs Go
	@rm -rf clients/go/v1 clients/go/events
	@cd clients/go && $(CURDIR)/$(BIN)/buf generate

# What the Node client is built with, of the versions that its package.json pins.
NODE := clients/node
NODE_READY := $(NODE)/node_modules/.ready

$(NODE_READY): $(NODE)/package.json
	@cd $(NODE) && npm install --loglevel=error --no-package-lock --no-audit --no-fund --ignore-scripts
	@touch $@

client-node: $(NODE_READY) ## build the Node client; needs Node and npm
	@cd $(NODE) && npm run --silent build

# google.rpc is what the details of errors are made of; its protos come with the Python packages.
protos-node: $(READY) $(NODE_READY) ## regenerate the Node stubs from protos/; needs Node and npm
	@rm -rf $(NODE)/src/gen && mkdir -p $(NODE)/src/gen
	@google=$$($(BIN)/python -c 'import google.rpc; print(list(google.rpc.__path__)[0][:-len("google/rpc")])') && \
	  $(BIN)/python -m grpc_tools.protoc -I protos -I "$$google" \
	  --plugin=$(NODE)/node_modules/.bin/protoc-gen-es --es_out=$(NODE)/src/gen \
	  --es_opt=target=ts,import_extension=js \
	  $$(find protos -name '*.proto' | sort) google/rpc/status.proto google/rpc/error_details.proto

baseline: $(READY) ## on a release: promise the present protos to clients (see `buf breaking`)
	@$(BIN)/buf build --exclude-source-info -o protos/baseline.binpb

demo: $(READY) ## show a broker of its own at work; on one that runs: ARGS="--target HOST:PORT"
	@$(BIN)/python -m eventbroker_cli.demo $(ARGS)

bench: $(READY) ## measure throughput and latency
	@$(BIN)/python -m benchmarks $(ARGS)

wheel: $(READY) ## build the wheel into dist/
	@rm -rf dist
	@$(BIN)/python -m build --quiet --wheel --no-isolation --outdir dist

# What pip-compile is told beside pyproject.toml: redis asks for async-timeout on Pythons older than 3.11.3 only, and
# pip-compile sees only the one it runs on; the others build the tree and its wheel.
COMPILE := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

requirements: $(READY) ## renew the hashed requirements from pyproject.toml
	@mkdir -p build
	@printf '%s\n' async-timeout hatchling editables \
	  | $(COMPILE) --all-extras -o build/requirements.txt pyproject.toml -
	@printf '%s\n' async-timeout \
	  | $(COMPILE) --extra server -o build/requirements-server.txt pyproject.toml -
	@for file in requirements.txt requirements-server.txt; do \
	  { echo '# Renewed by `make requirements`.'; cat build/$$file; } > $$file; done

clean: ## remove the venv, caches and builds; data stays
	@rm -rf $(VENV) build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	@rm -rf $(NODE)/dist $(NODE)/node_modules
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# The venv: made once, brought up to date when one of these files changes.
$(READY): requirements.txt pyproject.toml
	@set -e; if ! $(BIN)/python -c '' 2>/dev/null; then \
	  python=; for each in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$each; break; fi; done; \
	  if [ -z "$$python" ]; then \
	    echo 'eventbroker needs Python 3.11 or newer; point to one with: make PYTHON=/path/to/python3' >&2; exit 1; fi; \
	  if ! $$python -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "$$python lacks the venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; fi; \
	  echo 'Setting up .venv (once; about a minute)'; \
	  $$python -m venv --clear $(VENV); fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
