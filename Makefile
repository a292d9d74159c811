# Two commands matter: `make demo` shows the whole thing, `make test` proves it. Both do all their set-up in .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Half as many again as the machine has cores, at most six: of 3,800 tests of the daemon's rooms, workers waited 70 % of
# the time, for syncs, other ends and pauses between attempts. Real daemons only wait for each other beyond that.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); n=$$((n + n / 2)); [ $$n -gt 6 ] && n=6; echo $$n)

# Where 4 GiB of memory are free, tests of single rooms have their directories there, of 0.9 GB with four workers: half of
# the time of those that sync.
IN_MEMORY ?= $(shell [ -w /dev/shm ] && [ $$(df -Pk /dev/shm | awk 'END {print $$4}') -gt 4194304 ] && echo /dev/shm)

# Alone by default: the long runs measure too.
TORTURERS ?= 0

FUZZED ?= .fuzzed
SECONDS ?= 3600

# pytest keeps the rewritten tests as bytecode: to rewrite them takes 15 s of each worker and run.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check bench fuzz torture format clean

$(STAMP): pyproject.toml protocol/modelwire/version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "modeld needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group test --group check --editable '.[daemon]'
	touch $@

demo: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/demo.sh

test: $(STAMP)
	MODELD_TESTS_IN_MEMORY=$(IN_MEMORY) $(BIN)/python -m pytest -n $(WORKERS) -m 'not torture' $(PYTEST)

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/python -m modelwire.schema | cmp - protocol/schema.json

torture: $(STAMP)
	$(BIN)/python -m pytest -n $(TORTURERS) -m torture --timeout 3600 $(PYTEST)

fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --group fuzz
	$(BIN)/python -m bench.fuzz_headers $(FUZZED) $(SECONDS)

bench: $(STAMP)
	$(BIN)/python -m bench $(BENCH)

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(FUZZED) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
