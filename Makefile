# make run: the complete workflow on a simulated sample. make test: all checks.
# make quick: only fast tests, without Chromium and SLURM.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAMPLE := sample
# setuptools warns about each editable installation.
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt
RUN := $(BIN)/astromorph run --directory $(SAMPLE) --configfile $(CURDIR)/config/sample.yaml
LINT_RUN := .lint
# tests/conftest.py orders the modules: the longest first. Tests often wait for programs
# that they started, so that three workers keep two cores busy. Each has one thread; what
# has more does not wait for them actively, which takes the time of the others. Compiled
# files are written, since hundreds of programs are started.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE \
  $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
QUICK := -m "not slow and not browser and not slurm"

# A test of the guide uses what lint-types knows of other packages, so it comes first.
CHECKS := lint-types lint-style lint-workflow
JOBS := $(MAKE) --no-print-directory --jobs=2

.PHONY: help setup run quick test tests coverage versions docs clean
.PHONY: lint $(CHECKS)

help:
	@echo "make run    install into .venv, simulate a sample of FITS images, run the workflow"
	@echo "make quick  install into .venv, run the quick tests, about two minutes"
	@echo "make lint   install into .venv, run linters and type checker"
	@echo "make test   the checks of make lint and all tests, about twelve minutes"
	@echo "make coverage  run the quick tests; print how much of each folder they execute"
	@echo "make versions  the quick tests with the oldest, current and newest packages"
	@echo "make docs   build the guide, docs/_build/html/index.html"
	@echo "make setup  only install into .venv"
	@echo "make clean  remove .venv, sample and the guide"

setup: $(VENV)/installed

# An old pip, such as that of Python 3.11, takes longer to install the other packages.
$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; select one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Installing PyTorch and other packages into $(VENV), which takes minutes ..."
	$(PYTHON) -m venv $(VENV)
	-@$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/created
	$(INSTALL) --editable .
	touch $@

# Everything in one step. Modules are compiled when they are first imported: most never are.
$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/created
	$(INSTALL) --no-compile --editable '.[dev]'
	touch $(VENV)/installed $@

run: $(VENV)/installed
	test -f $(SAMPLE)/fits/filelist.csv || \
	  $(BIN)/astromorph simulate --output $(SAMPLE)/fits --number 210 --seed 1
	$(RUN)
	@$(RUN) --report report.html 2> $(SAMPLE)/report.log || { cat $(SAMPLE)/report.log; exit 1; }

# The type checker takes longest, so that two checks run at a time.
lint: $(VENV)/installed-dev
	@$(JOBS) --output-sync $(CHECKS)

lint-style:
	$(BIN)/ruff check astromorph tests benchmarks docs
	$(BIN)/ruff format --check astromorph tests benchmarks docs
	$(BIN)/snakefmt --check Snakefile workflow

lint-workflow:
	mkdir -p $(LINT_RUN) && echo image.fits > $(LINT_RUN)/filelist.csv
	$(BIN)/snakemake --lint --directory $(LINT_RUN) --configfile $(CURDIR)/config/config.yaml \
	  --config datafile=filelist.csv

lint-types:
	$(BIN)/mypy

quick: $(VENV)/installed-dev
	$(PYTEST) $(QUICK)

# The checks run beside the tests, which often wait. If one fails, the tests still end.
test: $(VENV)/installed-dev
	@$(JOBS) tests $(CHECKS)

# Modules are compiled when they are first imported, those of UMAP by numba, too: here once
# instead of in each worker.
tests: $(VENV)/installed-dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import snakemake.cli, torch._dynamo, torchvision, umap'
	$(PYTEST) --durations=10

# Choose other tests with TESTS, for example `make coverage TESTS=` for all of them.
COVERED := 'astromorph/*.py' $(patsubst %/__init__.py,'%/*',$(wildcard astromorph/*/__init__.py))
coverage: TESTS ?= $(QUICK)
coverage: $(VENV)/installed-dev
	$(BIN)/python -m coverage erase
	$(PYTEST) --cov --cov-report= $(TESTS)
	@for part in $(COVERED); do \
	  printf '%4s %%  %s\n' "$$($(BIN)/python -m coverage report --format=total --include="$$part")" "$$part"; \
	done
	@printf '%4s %%  in all\n' "$$($(BIN)/python -m coverage report --format=total)"

# make versions VERSIONS="--only oldest --folder /scratch/environments"
versions:
	$(PYTHON) benchmarks/versions.py $(VERSIONS)

docs: $(VENV)/installed-dev
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html
	@echo "Guide:   docs/_build/html/index.html"

clean:
	rm -rf $(VENV) $(SAMPLE) $(LINT_RUN) docs/_build
