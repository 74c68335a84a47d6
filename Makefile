# make run: the whole workflow on a simulated sample. make test: all checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAMPLE := sample
SNAKEMAKE := $(BIN)/snakemake --directory $(SAMPLE) --configfile $(CURDIR)/config/sample.yaml
LINT_RUN := .lint

.PHONY: help setup run test lint docs clean

help:
	@echo "make run    install into .venv, simulate a sample of FITS images, run the workflow"
	@echo "make test   install into .venv, run linters, type checker and tests"
	@echo "make docs   build the guide, docs/_build/html/index.html"
	@echo "make setup  install into .venv only"
	@echo "make clean  remove .venv and sample"

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(VENV)/installed
	test -f $(SAMPLE)/fits/filelist.csv || \
	  $(BIN)/astromorph simulate --output $(SAMPLE)/fits --number 210 --seed 1
	$(SNAKEMAKE) --cores all
	$(SNAKEMAKE) --report report.html
	@echo
	@echo "Table:   $(SAMPLE)/results/export/embeddings.csv, opens in any spreadsheet or with pandas"
	@echo "Map:     $(SAMPLE)/results/export/map.html, opens in a browser; colour by label"
	@echo "         or $(BIN)/tensorboard --logdir $(SAMPLE)/results, then the tab Projector"
	@echo "Report:  $(SAMPLE)/report.html, opens in a browser"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check astromorph tests benchmarks docs
	$(BIN)/ruff format --check astromorph tests benchmarks docs
	$(BIN)/snakefmt --check Snakefile workflow
	mkdir -p $(LINT_RUN) && echo image.fits > $(LINT_RUN)/filelist.txt
	$(BIN)/snakemake --lint --directory $(LINT_RUN) --configfile $(CURDIR)/config/config.yaml \
	  --config datafile=filelist.txt
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

docs: $(VENV)/installed-dev
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html
	@echo "Guide:   docs/_build/html/index.html"

clean:
	rm -rf $(VENV) $(SAMPLE) $(LINT_RUN) docs/_build
