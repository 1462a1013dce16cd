# Everything that a newcomer or CI runs. `make` alone says what there is.
#
# PYTHON   a path, a name or a version (3.12); default: the first that will do
# VENV     the virtual environment, made when needed
# JOBS     how many processes run unit tests
# ROOT     where `make run` keeps its cluster

PYTHON ?=
VENV   ?= .venv
ROOT   ?= $(CURDIR)/.state/node1
BIN    := $(VENV)/bin
SHELL  := /bin/sh

# How many processes run unit tests, and how pytest runs the modules of tests/functional.
JOBS ?= 2
SIDE_BY_SIDE ?= --numprocesses=4 --dist=loadfile

# Editable, yet as plain paths: the default editable layout hides plugins from twistd.
INSTALL = $(BIN)/python -m pip install --quiet --config-settings editable_mode=compat

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo run test unit unit-pytest functional kvm check lint types layers docs \
	fragments bench soak mutations wheel deb clean

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile \
		| awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

# -- environments: one stamp for each set of packages ------------------------

$(BIN)/python:
	@python="$$(tools/find-python $(PYTHON))" && echo "Environment $(VENV): $$python" \
		&& "$$python" -m venv $(VENV)

$(VENV)/.installed: pyproject.toml setup.py | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml setup.py | $(BIN)/python
	$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml setup.py | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

# -- to see it ----------------------------------------------------------------

demo: $(VENV)/.installed ## Show real jobs on three simulated nodes, then stop
	@$(BIN)/python -m ganeti_masterd.demo

run: $(VENV)/.installed ## Run the daemon on three simulated nodes until Ctrl-C
	@mkdir -p '$(ROOT)'
	@test '$(ROOT)' != '$(CURDIR)/.state/node1' || echo '*' > .state/.gitignore
	@echo 'The cluster is kept in $(ROOT). In another terminal:'
	@echo
	@echo '  export GANETI_ROOTDIR=$(ROOT) GANETI_HOSTNAME=$(notdir $(ROOT))'
	@echo '  $(abspath $(BIN))/gnt-luxi info      # comes with this daemon'
	@echo '  gnt-cluster info                     # Ganeti'"'"'s own tools, where installed'
	@echo
	@exec $(BIN)/twistd --nodaemon --pidfile='$(ROOT)/twistd.pid' \
		gnt-masterd --root='$(ROOT)' --simulate=3

# -- to prove it --------------------------------------------------------------

test: unit functional ## Run all tests

unit: $(VENV)/.installed-test ## Run the unit tests with trial
	$(BIN)/python -m twisted.trial --jobs=$(JOBS) --temp-directory=$(VENV)/trial tests

unit-pytest: $(VENV)/.installed-test ## Run the unit tests with pytest
	$(BIN)/python -m pytest --numprocesses=$(JOBS) tests

# In processes of its own: there pytest-twisted owns the reactor. The tests mostly wait for daemons
# and tools, so modules run side by side; each keeps to its own folders, ports and namespaces.
functional: $(VENV)/.installed-test ## Run the tests that start a daemon (ARGS=...)
	$(BIN)/python -m pytest --override-ini addopts= --durations=40 -m "not soak" \
		$(SIDE_BY_SIDE) $(ARGS) tests/functional

# One at a time, as the machine's own CPU stands for that of the virtual machines.
kvm: $(VENV)/.installed-test ## Run real virtual machines in qemu (ARGS='-k short')
	$(BIN)/python -m pytest --override-ini addopts= --capture=no $(ARGS) tests/kvm

soak: $(VENV)/.installed-test ## Run the long profiles of fuzzing, crashing, mixed load; mutations
	GANETI_MASTERD_SOAK=1 $(BIN)/python -m twisted.trial --temp-directory=$(VENV)/trial tests
	@if test -d tests/soak; then set -x; GANETI_MASTERD_SOAK=1 \
		$(BIN)/python -m pytest --override-ini addopts= tests/soak; fi
	$(BIN)/python -m pytest --override-ini addopts= -m soak tests/functional
	$(BIN)/python -m tools.mutate

mutations: $(VENV)/.installed-test ## Break the code in chosen ways, and see tests notice (ARGS=WORD)
	$(BIN)/python -m tools.mutate $(ARGS)

bench: $(VENV)/.installed ## Measure, beside the machine's own limits (ARGS=--quick)
	$(BIN)/python -m bench $(ARGS)

check: lint types layers docs fragments ## Check style, types, layers, docs, news

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy -p ganeti_masterd -p bench -p tools

layers: $(VENV)/.installed-dev
	$(BIN)/lint-imports

docs: $(VENV)/.installed-dev ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

fragments: $(VENV)/.installed-dev
	$(BIN)/python -m tools.check_fragments docs/newsfragments
	@$(BIN)/towncrier build --draft --version next --date today >/dev/null

# -- to ship it ---------------------------------------------------------------

wheel: $(VENV)/.installed-dev ## Build the wheel into dist/
	rm -rf build
	$(BIN)/python -m build --wheel --outdir dist .

deb: $(VENV)/.installed-dev ## Build the Debian package into dist/
	$(BIN)/python -m tools.debian_package --output dist

clean: ## Remove what was built; environments and clusters stay
	rm -rf build dist docs/_build _trial_temp* .mypy_cache .ruff_cache .pytest_cache .hypothesis
