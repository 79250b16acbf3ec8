# Two commands are for everyone: `make demo` and `make test`. `make help` lists the rest.
# All that is installed goes into .venv; remove it with `make clean`.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
DATA := vega-datasets==0.9.0

# An environment that was moved or copied has scripts that point to its old place: it is made anew.
ifneq ($(shell cat $(VENV)/.place 2>/dev/null),$(CURDIR))
$(VENV)/.place: anew
endif
# So is one that was made by another Python than the one that is named now.
ifneq ($(PYTHON),)
ifneq ($(shell cat $(VENV)/.python 2>/dev/null),$(PYTHON))
$(VENV)/.place: anew
endif
endif

.PHONY: help demo test slow fuzz lint format types bench clean anew
.NOTPARALLEL:
.SUFFIXES:

help:
	@echo "make demo     install, then run the irrigation example on four emulated TEEs"
	@echo "make test     install, then run the tests"
	@echo "make slow     run the tests that take long (fuzzing, load)"
	@echo "make fuzz     fuzz each parser for a minute"
	@echo "make lint     ruff: rules and format         make format   put the format right"
	@echo "make types    mypy --strict"
	@echo "make bench    run every benchmark"
	@echo "make clean    remove .venv, caches and what was built"
	@echo "PYTHON=...    the Python (3.11 or newer) for .venv; else the newest on PATH"

demo: $(VENV)/.broch $(VENV)/.data
	@$(BIN)/broch up examples/irrigation/app.toml

test: $(VENV)/.dev $(VENV)/.data
	@$(BIN)/python -m pytest -n auto -m "not slow"

slow: $(VENV)/.dev $(VENV)/.data
	@$(BIN)/python -m pytest -n auto -m slow

fuzz: $(VENV)/.dev
	@$(BIN)/python -m fuzz.driver all --seconds 60

lint: $(VENV)/.dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

types: $(VENV)/.dev
	@MYPYPATH=bench $(BIN)/mypy
	@$(BIN)/mypy tools

bench: $(VENV)/.dev $(VENV)/.data
	@$(BIN)/python bench/all.py

clean:
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed, one stamp each.

$(VENV)/.place: tools/bootstrap.py
	@python=$$(tools/find_python.sh "$(PYTHON)") && "$$python" tools/bootstrap.py $(VENV)
	@echo "$(PYTHON)" > $(VENV)/.python
	@echo "$(CURDIR)" > $@

$(VENV)/.broch: $(VENV)/.place pyproject.toml
	@echo "installing Broch, and a C compiler for the modules in C"
	@$(PIP) install --editable '.[native]'
	@touch $@

$(VENV)/.dev: $(VENV)/.place pyproject.toml
	@echo "installing Broch and the tools of its tests"
	@$(PIP) install --editable '.[dev]' 'hatchling>=1.25'
	@touch $(VENV)/.broch $@

# One file of the package is read, and none of its code run: its dependency (pandas) is left out.
$(VENV)/.data: $(VENV)/.place
	@echo "installing the example's weather data"
	@$(PIP) install --no-deps '$(DATA)'
	@touch $@
