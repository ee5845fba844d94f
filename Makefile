# Everything that is done to this project, by its verb. `make` alone lists them.
PYTHON ?= .venv/bin/python
BIN := $(dir $(PYTHON))
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-annotate --custom-compile-command 'make lock' --all-extras pyproject.toml

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
	@cp requirements.lock .lock.fresh && $(BIN)$(COMPILE) -o .lock.fresh
	@for lock in requirements.lock .lock.fresh; do sed '/--hash=/d; s/ \\$$//' $$lock >$$lock.pins; done
	@diff requirements.lock.pins .lock.fresh.pins && rm requirements.lock.pins .lock.fresh.pins .lock.fresh

.PHONY: lock
lock: ## Write the lock anew, keeping the pins that still fit; UPGRADE=--upgrade takes newer ones
	$(BIN)$(COMPILE) $(UPGRADE) -o requirements.lock

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
soak: ## Run the counted tests in full; K=word picks some; results are appended to test-results/soak.txt
	@mkdir -p test-results
	MODELYARD_REQUIRE=all $(BIN)pytest --scale 1 --numprocesses=0 $(if $(K),-k "$(K)") 2>&1 | tee -a test-results/soak.txt

.PHONY: bench
bench: ## Measure speed beside controls in the same run; results in benchmarks/results
	$(PYTHON) -m benchmarks

.PHONY: up
up: ## Start the server on port 8080
	$(BIN)modelyard up

.PHONY: demo
demo: ## Upload the example app, call it, print its answer
	$(BIN)modelyard demo --once

.PHONY: wheel
wheel: ## Build the wheel into dist
	$(BIN)uv build --wheel

.PHONY: offline-images
offline-images: ## Build local stand-ins for the public images, where no registry can be reached
	deploy/offline-images/build
