# Every target makes what it needs: a virtual environment in .venv from any Python >= 3.11.
# Nothing else has to be installed, and nothing outside this folder is written.
#
#   make demo    an agent's session in a jail: reads, edits, refused escapes, a deletion restored
#   make test    the tests, then the coverage gate
#   make check   lint, types, layers, tests: what has to pass before a commit
#   make soak    the long races and fuzzing (minutes)
#   make lint    ruff and mypy
#   make bench   measures fsjail beside what people use instead (a quarter of an hour; PYTHON= chooses)
#   make bench-quick  the goals only, in a minute; fails if one is missed by 30 %
#   make wheel   builds the wheel and tries it in an environment of its own
#   make clean   removes .venv and what the tools left

SHELL = /bin/sh
VENV = .venv
PY = $(VENV)/bin/python
PIP = $(PY) -m pip --disable-pip-version-check --quiet
# The modules that hold the promise: every branch of them is run by the tests.
GATED = src/fsjail/_root.py,src/fsjail/_policy.py,src/fsjail/_trash.py,src/fsjail/_jail.py
# Two workers by files: races of one file do not disturb each other, and two cores are enough.
WORKERS = -n 2 --dist loadfile

# The peers of `make bench` have an environment of their own, one for each PYTHON that is named.
BENCH = $(VENV)/bench$(if $(PYTHON),-$(subst /,-,$(PYTHON)))
BENCHFLAGS =

.DEFAULT_GOAL = help
.NOTPARALLEL:
.PHONY: help demo test soak bench bench-quick check lint layers wheel clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.fsjail
	$(PY) examples/demo.py

test: $(VENV)/.test
	$(PY) -m pytest $(WORKERS) --cov --cov-report=
	$(PY) -m coverage report --include=$(GATED) --fail-under=100

soak: $(VENV)/.test
	$(PY) -m pytest -m soak

bench: $(BENCH)/.made
	$(BENCH)/bin/python -m benchmarks.run $(BENCHFLAGS)

bench-quick: $(VENV)/.bench
	$(PY) -m benchmarks.run --quick

check: lint layers test

lint: $(VENV)/.test $(VENV)/.lint
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

layers: $(VENV)/.test
	$(PY) -m pytest -q tests/test_layers.py

# The checkout is not on the path there, so a file that the wheel forgets is missed.
wheel: $(VENV)/.made
	rm -rf dist $(VENV)/wheel
	$(PIP) wheel --no-deps --wheel-dir dist .
	$(PY) -m venv $(VENV)/wheel
	$(VENV)/wheel/bin/python -m pip --disable-pip-version-check --quiet install dist/*.whl
	$(VENV)/wheel/bin/python -I tests/smoke_wheel.py

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache

# --- the virtual environment -------------------------------------------------------------------
# A stamp is touched last, so that an interrupted installation is done again. A changed
# pyproject.toml makes the whole environment anew: what it no longer asks for must not linger.

$(VENV)/.made: pyproject.toml
	@python='$(PYTHON)'; late=''; \
	if [ -z "$$python" ]; then \
	  for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	    "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	    if "$$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$name; break; fi; \
	    late=$$name; \
	  done; \
	fi; \
	if [ -z "$$python" ] && [ -n "$$late" ]; then \
	  echo "fsjail: $$late cannot make virtual environments (no ensurepip)." >&2; \
	  echo "fsjail: on Debian and Ubuntu: apt install $$("$$late" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; \
	  exit 1; \
	elif [ -z "$$python" ]; then \
	  echo "fsjail: no Python 3.11 or newer found; name one with: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$python" -c 'import platform, sys; print(sys.executable, platform.python_version())')"; \
	"$$python" -m venv --clear $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.fsjail: $(VENV)/.made
	$(PIP) install --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.made
	$(PIP) install --editable . --group test
	@touch $@

# Without ripgrep its goals are left out, and the quick look says so.
$(VENV)/.bench: $(VENV)/.made
	$(PIP) install --editable . --group bench
	-@$(PIP) install --only-binary :all: ripgrep
	@touch $@

# Each peer is optional: one that cannot be installed is a row that says so.
$(BENCH)/.made: $(VENV)/.made benchmarks/peers.txt
	$(or $(PYTHON),$(PY)) -m venv --clear $(BENCH)
	$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --upgrade 'pip>=25.1'
	$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --editable . --group bench
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --prefer-binary -r benchmarks/peers.txt || \
	while read -r peer; do case $$peer in ''|'#'*) continue;; esac; \
	  $(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --prefer-binary "$$peer" \
	    || echo "fsjail: $$peer could not be installed: left out" >&2; \
	done < benchmarks/peers.txt
	@npm install --silent --no-audit --no-fund --prefix $(BENCH) @modelcontextprotocol/server-filesystem \
	  || echo 'fsjail: the MCP server could not be installed with npm: left out' >&2
	@touch $@

$(VENV)/.lint: $(VENV)/.made
	$(PIP) install --group lint
	@touch $@
