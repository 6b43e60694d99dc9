# The commands of this project, each from a fresh clone with Python >= 3.11:
#   make test       ruff, mypy, pytest (doctests included)
#   make bench      the quick benchmark: table, figure and results under results/
#   make docs       the site, under docs/_build; runs the examples
#   make site-test  the site, opened in Chromium
#   make test      ruff, mypy, pytest (doctests included)
#   make bench     the quick benchmark: table, figure and results under results/
#   make browser   reports, opened in Chromium
#   make test           ruff, mypy, pytest (doctests included)
#   make bench          the quick benchmark: table, figure and results under results/
#   make browser        reports, opened in Chromium
#   make wheel-test     the wheel, built and used in environments of its own
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: test bench docs site-test clean
.PHONY: test bench browser clean
.PHONY: test bench browser wheel-test clean

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks run quick

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

site-test: docs
	$(BIN)/pytest -n 0 tests/site
browser: $(VENV)/.installed
	$(BIN)/pytest -n 0 tests/benchmarks/test_browser.py

wheel-test: $(VENV)/.installed
	$(BIN)/pytest -n 0 tests/wheel

# One environment serves all; the stamp is written last, so an interrupted install is redone.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "rsam needs Python 3.11 or newer; set it with make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[testing,curvature,margins,integrations,bench,docs,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf docs/_build docs/gallery docs/results docs/reference/rsam*.rst
