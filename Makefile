# `make demo` and `make test` are all you need; both set up what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= auto

.PHONY: demo test test-all check setup bench clean bubblewrap

setup: $(STAMP) bubblewrap

# What holds an experiment. Without it landlock alone does, and its tests fail unless NIGHTSHIFT_NO_BWRAP=1.
bubblewrap:
	@command -v bwrap >/dev/null || [ "$$(uname)" != Linux ] || [ "$$NIGHTSHIFT_NO_BWRAP" = 1 ] || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y bubblewrap >/dev/null; } || \
	echo "Install bubblewrap (Debian, Ubuntu: sudo apt-get install bubblewrap): experiments are held by less without it."

# The stamp holds the checksums of what was installed from, so a touched but equal file installs nothing again.
$(STAMP): pyproject.toml constraints.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit("Nightshift needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": call make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@echo "Setting up $(VENV): downloads the packages pinned in constraints.txt, torch is by far the largest"
	@echo "(about 200 MB as a CPU build, several GB with CUDA; set PIP_EXTRA_INDEX_URL to choose). Only once."
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@

demo: setup
	@$(BIN)/nightshift demo $(DEMO)

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: check
	@$(BIN)/pytest -n $(WORKERS) -m 'not long and not gpu and not live'

test-all: check
	@$(BIN)/pytest -n $(WORKERS) -m 'not gpu and not live'

# BENCH=--quick for a look in a minute, BENCH='--write docs/performance.md' to put the table there.
bench: setup
	@$(BIN)/python -c 'import eventsourcing' 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python benchmarks/run_all.py $(BENCH)

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
