# The commands of this project, each from a fresh clone with Python >= 3.11:
#   make test           ruff, mypy, pytest (doctests included)
#   make bench          the quick benchmark: table, figure and results under results/
#   make docs           the site, under docs/_build; runs the examples
#   make browser        reports and the site, opened in Chromium
#   make wheel-test     the wheel, built and used in environments of its own
#   make oldest-torch   the core on the oldest torch and numpy that are declared
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest

.PHONY: test bench docs browser wheel-test oldest-torch clean

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks run quick

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

browser: docs
	$(BIN)/pytest -n 0 tests/benchmarks/test_browser.py tests/site

wheel-test: $(VENV)/.installed
	$(BIN)/pytest -n 0 tests/wheel

oldest-torch: $(OLDEST)/.installed
	$(OLDEST)/bin/pytest tests/geometry tests/evaluation tests/optim tests/nn tests/curvature

# One environment serves all but the last; the stamp is written last, so an interrupted install is redone.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "rsam needs Python 3.11 or newer; set it with make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[testing,curvature,margins,integrations,bench,docs,dev]'
	touch $@

# Wheels of torch 2.4 are for Python up to 3.12. With PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu pip takes
# the build without CUDA, a tenth as large.
$(OLDEST)/.installed: pyproject.toml
	test -x $(OLDEST)/bin/pip || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check 'torch==2.4.0' 'numpy==1.26.4' \
		--editable '.[testing,curvature,dev]' torchvision pytorch_optimizer
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf docs/_build docs/gallery docs/results docs/reference/rsam*.rst
