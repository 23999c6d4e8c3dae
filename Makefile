# The two commands of the README are `make demo` and `make test`; everything else is for those who work on Gleaner.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; exit; }; done; echo python3)
BIN := .venv/bin
PORT ?= 8090
GRPC_PORT ?= 8091
MACHINE_PORT ?= 8080
ARGS ?=

.PHONY: .venv-dev help demo test lint types unit journey bench fault search docs pretrain web clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: ## the whole loop with a simulated rover: prints one URL (PORT=, GRPC_PORT=, MACHINE_PORT=)
	@$(PYTHON) scripts/bootstrap.py all
	@exec $(BIN)/gleaner demo --port $(PORT) --grpc-port $(GRPC_PORT) --machine-port $(MACHINE_PORT) $(ARGS)

.venv-dev:
	@$(PYTHON) scripts/bootstrap.py dev

test: .venv-dev lint types ## everything CI runs: lint, types, unit, property, fault (short), compat and browser tests
	@$(BIN)/python scripts/programs.py
	@$(BIN)/python scripts/tests.py $(ARGS)

lint: .venv-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv-dev
	@$(BIN)/mypy
	@MYPYPATH=src:bench:tests:tests/fault $(BIN)/mypy --allow-untyped-calls bench
	@$(BIN)/python scripts/web.py run --silent check

unit: .venv-dev ## the fast tests only
	@$(BIN)/python -m pytest tests/unit tests/property $(ARGS)

journey: .venv-dev ## the browser journey alone; last line is JSON with its timings
	@$(BIN)/python scripts/programs.py
	@$(BIN)/python scripts/journey.py

bench: .venv-dev ## one measurement beside its peer: make -s bench ONLY=capture_write
	@test -n "$(ONLY)" || { echo "Say which: make -s bench ONLY=name, one of:"; ls bench | sed -n 's/^\([a-z]*[a-z_]*\)\.py$$/  \1/p'; exit 2; }
	@$(BIN)/python bench/$(ONLY).py $(ARGS)

fault: .venv-dev ## the long fault tests: 200 kills of capture, sync and app (KILLS=, ROUNDS=50, HOURS= for a soak)
	@GLEANER_FAULT_ROUNDS=$(or $(ROUNDS),50) GLEANER_FAULT_KILLS=$(or $(KILLS),200) GLEANER_SOAK_HOURS=$(or $(HOURS),0) $(BIN)/python -m pytest tests/fault --timeout $(or $(TIMEOUT),3600) -o faulthandler_timeout=0 $(ARGS)

search: .venv-dev ## the tests that make up their examples, with other examples than `make test` has
	@GLEANER_SEARCH=1 $(BIN)/python -m pytest $(shell grep -rl hypothesis tests --include='test_*.py') $(ARGS)

docs: .venv-dev ## regenerates what is generated: the model catalogue, the configuration reference, OpenAPI and its types
	@$(BIN)/python scripts/docs.py

pretrain: .venv-dev ## learns the starting weights anew from drawn pictures (CPU hours; ARGS="--steps 2000" for fewer)
	@$(BIN)/python -m gleaner.learn.pretrain $(ARGS)

web: .venv-dev ## rebuilds the web pages into src/gleaner/app/static
	@$(BIN)/python scripts/web.py run build

clean: ## removes what was built (not your data)
	rm -rf .venv .cache build dist web/node_modules src/gleaner/app/static
