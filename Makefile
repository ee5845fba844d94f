# Everything that is done to this project, by its verb. `make` alone lists them.
PYTHON ?= .venv/bin/python
BIN := $(dir $(PYTHON))
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-annotate --custom-compile-command 'make lock' pyproject.toml
ALL := --all-extras
# What the image of the services holds: the same pins, for the parts of several processes alone.
STACK := --extra docker --extra kafka --extra otel --extra postgres --constraint requirements.lock
STACK_LOCK := deploy/stack/requirements.lock

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the verbs
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: .venv ## Install the project and what its development needs into .venv
	$(BIN)pip install -q -e '.[dev]'

.venv:
	python3 -m venv .venv

.PHONY: check
check: ## Lint, format, types, import contracts, lock
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)mypy
	$(BIN)lint-imports
	@cp requirements.lock .lock.fresh && cp $(STACK_LOCK) .stack.lock.fresh
	@$(BIN)$(COMPILE) $(ALL) -o .lock.fresh && $(BIN)$(COMPILE) $(STACK) -o .stack.lock.fresh
	@for lock in requirements.lock .lock.fresh $(STACK_LOCK) .stack.lock.fresh; do sed '/--hash=/d; s/ \\$$//' $$lock >$$lock.pins; done
	@diff requirements.lock.pins .lock.fresh.pins && diff $(STACK_LOCK).pins .stack.lock.fresh.pins
	@rm -f requirements.lock.pins $(STACK_LOCK).pins .lock.fresh* .stack.lock.fresh*

.PHONY: lock
lock: ## Write the lock anew, keeping the pins that still fit; UPGRADE=--upgrade takes newer ones
	$(BIN)$(COMPILE) $(ALL) $(UPGRADE) -o requirements.lock
	$(BIN)$(COMPILE) $(STACK) $(UPGRADE) -o $(STACK_LOCK)

.PHONY: format
format: ## Write the code in its form
	$(BIN)ruff check --fix .
	$(BIN)ruff format .

.PHONY: test
test: ## Run every test that needs no part beside Python
	$(BIN)pytest

.PHONY: test-postgres
test-postgres: ## Run the suite of the services on Postgres, each service under its own role
	MODELYARD_REQUIRE=postgres $(BIN)pytest --database postgres tests/service

.PHONY: soak
soak: ## Run the counted tests in full; K=word picks some, REQUIRE=docker,slow those on containers; results are appended to test-results/soak.txt
	@mkdir -p test-results
	MODELYARD_REQUIRE=$(or $(REQUIRE),all) $(BIN)pytest --scale 1 --numprocesses=0 $(if $(K),-k "$(K)") 2>&1 | tee -a test-results/soak.txt

.PHONY: bench
bench: ## Measure speed beside controls in the same run; results in benchmarks/results
	$(PYTHON) -m benchmarks
	$(PYTHON) -m benchmarks.noop

.PHONY: up
up: ## Build the images of the local stack, start it, wait until it is healthy
	deploy/stack/up

.PHONY: down
down: ## Stop the local stack and its apps; VOLUMES=1 removes what it keeps as well
	deploy/stack/down $(if $(VOLUMES),--volumes)

.PHONY: logs
logs: ## Follow what the services of the local stack say
	docker compose logs --follow --tail 100

.PHONY: ps
ps: ## List the services of the local stack and how they are
	docker compose ps --all

.PHONY: token
token: ## Print an administrator's token for the local stack
	@docker compose exec -T auth modelyard token

.PHONY: demo
demo: ## Upload the example app, call it, print its answer
	$(BIN)modelyard demo --once

.PHONY: wheel
wheel: ## Build the wheel into dist
	$(BIN)uv build --wheel

.PHONY: offline-images
offline-images: ## Build local stand-ins for the public images, where no registry can be reached
	deploy/offline-images/build
