# make lab · make course · make test        each makes .venv first, with the versions of constraints.txt
PYTHON ?= python3
PY := .venv/bin/python

.PHONY: help .venv lab course test release lint clean
help:
	@echo "make lab      open the course in JupyterLab"
	@echo "make course   run every chapter; report and figures go to build/"
	@echo "make test     run every test"
	@echo "make release  build the notebooks from notebooks/source/"
	@echo "make lint     ruff and mypy"
	@echo "make clean    remove build/ and caches (trained models in runs/ and .venv stay)"

lab: .venv
	$(PY) -m course_utils lab

course: .venv
	$(PY) -m course_utils run

test: .venv
	$(PY) -m course_utils test

release: .venv
	$(PY) -m course_utils build

lint: .venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find course_utils tests notebooks -name __pycache__ -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted installation is taken up again.
.venv: .venv/.made
.venv/.made: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "The course needs Python 3.11 or newer and $(PYTHON) is older or missing: install one and say  make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make environments: run  apt-get install python3-venv  (Debian, Ubuntu) and try again"; exit 1; }
	@echo "Making the environment in .venv (some minutes, 2 to 7 GB) ..."
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -c constraints.txt -e '.[dev,instructor,laptop]'
	@touch $@
