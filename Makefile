# `make` alone lists the commands.
SHELL := /bin/sh
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += --jobs=4 --no-print-directory
endif
PYTHON ?= python3
PYTEST_FLAGS ?=

# A first run without network must fail within seconds; the environment can set other limits.
export PIP_RETRIES ?= 2
export PIP_DEFAULT_TIMEOUT ?= 10
export npm_config_fetch_retries ?= 2
export npm_config_fetch_retry_mintimeout ?= 1000
export npm_config_fetch_timeout ?= 30000
FAIL_INSTALL = { echo "setup: the packages in $(@D) could not be installed; is there a network?" >&2; exit 1; }

# Read arguments only from make's command line, because many shells set EMAIL.
command_line_value = $(if $(filter command,$(origin $(1))),$(value $(1)))
shell_quote = '$(subst ','\'',$(command_line_value))'

VENV := .venv/bin
INSTALL = -m pip install -qq --disable-pip-version-check --no-compile --require-hashes --requirement
FUNCTIONS := authorizer websocket
SOURCES := images infra local ops tests benchmarks
PAGE_SOURCES := $(shell find frontend -type d '(' -name node_modules -o -name dist -o -name tests ')' -prune -o -type f -print)
STAMPS := .venv/stamp node_modules/stamp $(FUNCTIONS:%=.local/venvs/%/stamp) .local/venvs/probe/stamp .local/venvs/aws/stamp .local/bin/aws-lambda-rie

.PHONY: help
help: ## list the commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: setup
setup: $(STAMPS) ## install what the system needs into this folder; other commands do this when needed

.PHONY: demo
demo: setup ## see the whole system work: sign-in, connect, echo, push, refusals, disconnect
	@$(VENV)/python -m local demo $(LOCAL_FLAGS)

.PHONY: up
up: page setup ## run the whole system and its page until Ctrl-C
	@$(VENV)/python -m local up $(LOCAL_FLAGS)

.PHONY: token
token: ## print an ID token of the user of `make up`, or of EMAIL=bob@example.com
	@$(VENV)/python -m local token $(LOCAL_FLAGS) $(if $(call command_line_value,EMAIL),-- $(call shell_quote,EMAIL))

.PHONY: user
user: ## add a user to `make up`: EMAIL=bob@example.com, and GROUP=admins for a group
	@$(VENV)/python -m local user $(LOCAL_FLAGS) $(foreach group,$(call command_line_value,GROUP),--group='$(subst ','\'',$(group))') -- $(call shell_quote,EMAIL)

.PHONY: connection
connection: ## print the id of the newest connection of `make up`
	@$(VENV)/python -m local connection $(LOCAL_FLAGS)

.PHONY: post
post: ## post MESSAGE='hello' to the newest connection of `make up`, or to CONNECTION=…
	@$(VENV)/python -m local post $(LOCAL_FLAGS) $(if $(call command_line_value,CONNECTION),--connection=$(call shell_quote,CONNECTION)) -- $(call shell_quote,MESSAGE)

.PHONY: who
who: ## list the connections of `make up`, or those of EMAIL=bob@example.com
	@$(VENV)/python -m ops who --local $(LOCAL_FLAGS) $(if $(call command_line_value,EMAIL),--user=$(call shell_quote,EMAIL))

.PHONY: push
push: ## push MESSAGE='hello' to every connection of `make up`, or to those of EMAIL=bob@example.com
	@$(VENV)/python -m ops push --local $(LOCAL_FLAGS) $(if $(call command_line_value,EMAIL),--user=$(call shell_quote,EMAIL),--all) -- $(call shell_quote,MESSAGE)

.PHONY: kick
kick: ## end the connections of EMAIL=bob@example.com to `make up`
	@$(VENV)/python -m ops kick --local $(LOCAL_FLAGS) --user=$(call shell_quote,EMAIL)

.PHONY: page
page: frontend/dist/page/index.html ## build the page

.PHONY: page-config
page-config: frontend/node_modules/stamp ## write the page's settings from the outputs.json of a deployment
	@$(PYTHON) -m infra.page_config $(FLAGS)

.PHONY: page-size
page-size: page ## print how much JavaScript the built page has
	@npm run --silent size --prefix frontend

.PHONY: test-fast
test-fast: .venv/stamp ## run the unit tests: one process, no container
	@$(VENV)/python -m pytest --quiet tests/unit $(PYTEST_FLAGS)

.PHONY: test
test: page setup .venv/stamp-browser ## run every test that this machine can run
	@npm test --silent --prefix frontend
	@npm run --silent size --prefix frontend
	@$(VENV)/coverage run -m pytest $(PYTEST_FLAGS)
	@$(VENV)/coverage report --include='images/*' --fail-under=100
	@$(VENV)/coverage report --include='local/*' --fail-under=95

.PHONY: conformance
conformance: setup ## compare the local gateway with API Gateway's known behaviour; FLAGS="--endpoint wss://…" tests another endpoint
	@$(VENV)/python -m pytest tests/conformance $(FLAGS)

.PHONY: bench
bench: setup ## measure cold and warm invocations of both functions; FLAGS="--subjects FILE" adds others
	@$(VENV)/python -m benchmarks.functions $(FLAGS)

.PHONY: bench-gateway
bench-gateway: setup ## measure the local gateway against a bare echo server
	@$(VENV)/python -m benchmarks.gateway

.PHONY: bench-ops
bench-ops: setup ## measure a push to 5,000 connections and a kick of 1,000 against boto3's calls
	@$(VENV)/python -m benchmarks.ops

.PHONY: bench-edit
bench-edit: page setup ## measure how long `make up` takes to start, and to serve an edited handler; FLAGS="--functions process" for one way only
	@$(VENV)/python -m benchmarks.edit_loop $(FLAGS)

.PHONY: check
check: .venv/stamp .venv/stamp-browser frontend/node_modules/stamp ## run the formatter, the linter, the type checker and the link check
	@$(MAKE) $(if $(filter output-sync,$(.FEATURES)),--output-sync) check-style check-types check-docs check-page

.PHONY: check-style check-types check-docs check-page
check-style:
	$(VENV)/ruff format --check --quiet $(SOURCES)
	$(VENV)/ruff check --quiet $(SOURCES)

check-types:
	$(VENV)/mypy $(SOURCES)

check-docs:
	$(VENV)/python -m pytest --quiet tests/unit/test_documents.py

check-page:
	npm run --silent check --prefix frontend

.PHONY: format
format: .venv/stamp frontend/node_modules/stamp ## format the code, and fix what the linter can
	$(VENV)/ruff format --quiet $(SOURCES)
	$(VENV)/ruff check --quiet --fix $(SOURCES)
	npm run --silent format --prefix frontend

.PHONY: images
images: ## build both images, and those with the emulator
	docker buildx bake default rie

.PHONY: image-report
image-report: ## build both images, print their contents, and fail if Lambda would refuse them
	@docker buildx bake --load default
	@$(PYTHON) -m infra.image_report $(FUNCTIONS:%=%:$${TAG:-dev})

.PHONY: synth
synth: setup ## synthesize and validate the stack
	npx cdk synth --quiet

.PHONY: lock
lock: ## update the locks after a change of the .in files; other versions stay
	@command -v $(firstword $(UV)) >/dev/null || { echo "make lock needs uv, which is not on PATH: install it from https://docs.astral.sh/uv/, or run make lock UV=path/to/uv" >&2; exit 1; }
	@for name in images/authorizer/requirements images/websocket/requirements tests/conformance/images/probe/requirements requirements/dev requirements/browser requirements/aws; do \
	  $(UV_COMPILE) $$name.in --output-file $$name.txt || exit 1; \
	done
	@$(UV_COMPILE) --no-deps images/rie/requirements.in --output-file images/rie/requirements.txt

.PHONY: lock-upgrade
lock-upgrade: LOCK_FLAGS := --upgrade
lock-upgrade: lock ## lock the newest version of every requirement

UV ?= uv
LOCK_FLAGS :=
UV_COMPILE = $(UV) pip compile --quiet $(LOCK_FLAGS) --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --custom-compile-command 'make lock'

.PHONY: clean
clean: ## remove everything that make installed and built in this folder
	rm -rf .venv .local node_modules frontend/node_modules frontend/dist cdk.out .coverage .mypy_cache .pytest_cache .ruff_cache

.local/preflight:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); if (a < 20 || (a === 20 && b < 19)) { console.error("Node 20.19 or newer is needed, this is " + process.versions.node); process.exit(1) }'
	@mkdir -p $(@D) && touch $@

.venv/stamp: requirements/dev.txt | .local/preflight
	@echo "setup: Python packages for synthesis, local run and tests (.venv)"
	@$(PYTHON) -m venv .venv && { $(VENV)/python $(INSTALL) $< || $(FAIL_INSTALL); } && touch $@

.venv/stamp-browser: requirements/browser.txt .venv/stamp
	@echo "setup: Playwright for the page's tests (.venv)"
	@{ $(VENV)/python $(INSTALL) $< || $(FAIL_INSTALL); } && touch $@

node_modules/stamp: package-lock.json | .local/preflight
	@echo "setup: CDK CLI and wscat (node_modules)"
	@{ npm ci --loglevel=error --no-audit --no-fund >/dev/null || $(FAIL_INSTALL); } && touch $@

frontend/node_modules/stamp: frontend/package-lock.json | .local/preflight
	@echo "setup: the page's packages (frontend/node_modules)"
	@{ npm ci --loglevel=error --no-audit --no-fund --prefix frontend >/dev/null || $(FAIL_INSTALL); } && touch $@

frontend/dist/page/index.html: $(PAGE_SOURCES) frontend/node_modules/stamp
	@echo "setup: the page and the inspector (frontend/dist)"
	@npm run --silent build --prefix frontend && touch $@

.local/venvs/%/stamp: images/%/requirements.txt | .local/preflight
	@echo "setup: the $* image's packages, for running it as a process ($(@D))"
	@$(PYTHON) -m venv $(@D) && { $(@D)/bin/python $(INSTALL) $< || $(FAIL_INSTALL); } && touch $@

.local/venvs/probe/stamp: tests/conformance/images/probe/requirements.txt | .local/preflight
	@echo "setup: the conformance pack's function ($(@D))"
	@$(PYTHON) -m venv $(@D) && { $(@D)/bin/python $(INSTALL) $< || $(FAIL_INSTALL); } && touch $@

.local/venvs/aws/stamp: requirements/aws.txt | .local/preflight
	@echo "setup: local Cognito and DynamoDB ($(@D))"
	@$(PYTHON) -m venv $(@D) && { $(@D)/bin/python $(INSTALL) $< || $(FAIL_INSTALL); } && touch $@

# The emulator comes in the wheel of aws-sam-cli, for Linux on both architectures.
.local/bin/aws-lambda-rie: images/rie/requirements.txt | .local/preflight
	@echo "setup: Lambda runtime interface emulator ($@)"
	@mkdir -p $(@D) && wheel=$$(mktemp -d) && \
	  { $(PYTHON) -m pip download -qq --disable-pip-version-check --no-deps --require-hashes --dest $$wheel --requirement $< || $(FAIL_INSTALL); } && \
	  $(PYTHON) -m zipfile --extract $$wheel/*.whl $$wheel && \
	  install -m 755 $$wheel/samcli/local/rapid/aws-lambda-rie-$$(uname -m | sed s/aarch64/arm64/) $@ && rm -r $$wheel
