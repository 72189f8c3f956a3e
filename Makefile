# Two commands do everything on a fresh machine with Python 3.11+, git and make:
#   make report    environment, install, report.html of the sample runs
#   make test      environment with everything, style, types, the whole test suite against the built wheel
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SOURCES := $(shell git ls-files eventstream parsers analysis aftertrain pyproject.toml 2>/dev/null)

.PHONY: report test lint types samples bench clean

report: $(VENV)/.installed
	$(BIN)/aftertrain report data/samples -o report.html
	@echo "open report.html in a browser"

test: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	# A file stays with one worker, so that what its tests share is made once.
	AFTERTRAIN_WHEEL=1 $(BIN)/pytest -n 2 --dist loadfile --doctest-modules --pyargs tests eventstream parsers analysis aftertrain

samples: $(VENV)/.installed-all
	$(BIN)/python -m data.training

bench: $(VENV)/.installed-all
	$(BIN)/python -m benchmarks --write

# The wheel is built and installed anew whenever a source file changed, so that what runs is what ships.
$(VENV)/.wheel: $(SOURCES) | $(BIN)/python
	rm -rf dist
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build --wheel --outdir dist . > $(VENV)/build.log || { cat $(VENV)/build.log; exit 1; }
	touch $@

$(VENV)/.installed: $(VENV)/.wheel
	$(BIN)/python -m pip install --quiet "$$(ls dist/*.whl)[embeddings]"
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	touch $@

# torch first and alone: a CPU build where one is at hand, never a newer one with gigabytes of CUDA.
$(VENV)/.installed-all: $(VENV)/.wheel
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet "$$(ls dist/*.whl)[all,dev]"
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	touch $@ $(VENV)/.installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

clean:
	rm -rf dist build report.html report.md report.json
