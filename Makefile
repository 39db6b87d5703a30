# Two commands do everything on a fresh machine: make demo, make test. CI runs make check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
S17 := tests/acceptance/test_s17_attribution.py# two processes of its own: it runs alone

.PHONY: help demo test s17 bench check format lint types imports migrations wheel clean install

help: ## say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("promptd needs Python 3.11 or later; set PYTHON=python3.12, say" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[oauth]' --group dev
	@touch $@

install: $(STAMP) ## make .venv with promptd and what its tests need

demo: $(STAMP) ## run the main job: a login that has expired, a fallback, the ledger (Ctrl-C ends it)
	@$(BIN)/promptd demo $(DEMO)

test: $(STAMP) ## run all tests, a file to a worker (WORKERS=1: one after the other)
	$(BIN)/python -m pytest --numprocesses $(or $(WORKERS),3) --dist loadfile $(or $(PYTEST),--ignore $(S17))
	$(if $(PYTEST),,$(BIN)/python -m pytest $(S17))

check: format lint types imports test migrations ## everything that CI checks

format: $(STAMP) ## is everything formatted? (make fix formats)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP) ## does everybody import only what lies below?
	$(BIN)/lint-imports

bench: $(STAMP) ## print the figures that no test asserts: start-up, memory, timeouts
	@$(BIN)/python bench/help_ratio.py
	@$(BIN)/python bench/timeouts.py

s17: $(STAMP) ## run S17, a mark belongs to the attempt that earned it, for longer: make s17 REQUESTS=1000000 SEED=1
	$(BIN)/python -m pytest $(S17) -k earned --s17-requests $(or $(REQUESTS),1000000) --s17-seed $(or $(SEED),1)

migrations: $(STAMP) ## do the migrations lead to the tables of the code?
	$(BIN)/python -m pytest --quiet tests/integration/test_migrations.py

fix: $(STAMP) ## format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(STAMP) ## build dist/promptd-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove what make made
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
