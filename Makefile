# The two commands of the README are `make demo` and `make test`; each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_TO_TEST := $(VENV)/.ready-to-test
# Files of tests beside each other, each file in one process.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
export HF_HUB_OFFLINE := 1
# Where it is set, each of a hundred short processes would compile torch again: 24 s instead of 11 for one of training.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check slow soak clean

demo: $(READY)
	$(BIN)/idia demo

test: check
	$(PYTEST)

check: $(READY_TO_TEST)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

slow: $(READY_TO_TEST)
	$(PYTEST) -m "slow and not soak"

# IDIA_SOAK=0.1 runs a tenth of it; alone, for its kills wait for moments that come within seconds.
soak: $(READY_TO_TEST)
	$(PYTEST) --numprocesses 0 -m soak

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "idia needs Python 3.11 or later; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable "."
	touch $@

$(READY_TO_TEST): $(READY)
	$(INSTALL) --editable ".[dev]"
	touch $@
