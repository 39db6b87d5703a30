# Two commands do everything on a fresh machine: make demo, make test. CI runs make check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-bench
STAMP := $(VENV)/installed
S17 := tests/acceptance/test_s17_attribution.py# two processes of its own: it runs alone

.PHONY: help demo test debian postgresql s17 crash soak bench check format lint types imports migrations wheel clean install fix

help: ## say what can be made
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("promptd needs Python 3.11 or later; set PYTHON=python3.12, say" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[oauth,postgres]' --group dev
	@touch $@

install: $(STAMP) ## make .venv with promptd and what its tests need

demo: $(STAMP) ## run the main job: a login that has expired, a fallback, the ledger (Ctrl-C ends it)
	@$(BIN)/promptd demo $(DEMO)

test: $(STAMP) debian ## run all tests, a file to a worker (WORKERS=1: one after the other; INSTALLED=1: fork no commands)
	$(BIN)/python -m pytest $(if $(INSTALLED),--installed) --numprocesses $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder $(or $(PYTEST),--ignore $(S17))
	$(if $(PYTEST),,$(BIN)/python -m pytest $(S17) --s17-requests 30000)

debian: $(STAMP) ## what the tests need of Debian (PostgreSQL, Prometheus, systemd-nspawn): unpacked into .venv, installing nothing
	@$(BIN)/python tests/support/debian.py

postgresql: $(STAMP) ## of these the PostgreSQL server alone
	@$(BIN)/python tests/support/debian.py postgresql

check: format lint types imports test ## everything that CI checks

format: $(STAMP) ## is everything formatted? (make fix formats)
	$(BIN)/ruff format --check .

lint: $(STAMP) ## is it written as we write? (make fix mends some of it)
	$(BIN)/ruff check .

types: $(STAMP) ## does mypy agree?
	$(BIN)/mypy

imports: $(STAMP) ## does everybody import only what lies below?
	$(BIN)/lint-imports

bench: $(STAMP) $(PEERS)/installed ## measure beside others on loopback: make bench BENCH="a d" WRITE=docs/benchmarks.md
	@$(BIN)/python -m bench $(BENCH) --peers $(PEERS) $(if $(WRITE),--write $(WRITE)) $(if $(PROFILE),--profile)

$(PEERS)/installed: bench/peers.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement bench/peers.txt
	@touch $@

s17: $(STAMP) ## run S17, a mark belongs to the attempt that earned it, for longer: make s17 REQUESTS=1000000 SEED=1
	$(BIN)/python -m pytest $(S17) -k earned --s17-requests $(or $(REQUESTS),1000000) --s17-seed $(or $(SEED),1)

crash: $(STAMP) ## kill daemons at named points and at random, and balance the books: make crash N=500 SEED=7
	cd tests && $(abspath $(BIN))/python -m support.crash --rounds $(or $(N),40) --seed $(or $(SEED),7)

soak: $(STAMP) ## a daemon with 1,000 jobs amid faults, reloads and restarts: make soak SECONDS=3600
	cd tests && $(abspath $(BIN))/python -m support.soak --seconds $(or $(SECONDS),90)

migrations: $(STAMP) ## do the migrations lead to the tables of the code?
	$(BIN)/python -m pytest --quiet tests/integration/test_migrations.py

fix: $(STAMP) ## format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(STAMP) ## build dist/promptd-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove what make made
	rm -rf $(VENV) $(PEERS) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
