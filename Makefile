# make demo       install, then run every step on the synthetic corpus, offline; JOBS=2: two steps at once
# make test       install, then run the fast tests     make test-all   run all tests
# make lint       run ruff and mypy
# make bench      install, then measure how fast each part is, into BENCH=runs/bench.json; BENCH_ARGS="--size gpu" on a GPU
# PYTEST_ARGS are passed to pytest:                    make test PYTEST_ARGS="--cov -k wheel"

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
JOBS ?= 2
BENCH ?= runs/bench.json
export HF_HUB_OFFLINE := 1

.PHONY: demo bench test test-all lint install clean

demo: $(STAMP)
	$(BIN)/emit run demo --jobs $(JOBS)

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/bench --out $(BENCH) $(BENCH_ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 $(PYTEST_ARGS)

test-all: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 -m "slow or not slow" $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

install: $(STAMP)

# uv installs the pinned set in a fraction of pip's time; where uv is unavailable, pip installs the same set. Unlike pip,
# uv leaves compiling to the first import, and some environments discard the result: the packages that the demo imports
# are compiled here with ours, on all cores, without most of the modules that it does not import.
UNUSED := /tests/|/transformers/models/[^_ab]|/torch/(_inductor|testing/_internal)/|/(pip|setuptools|pygments|onnx[a-z]*|sklearn|networkx|narwhals)/
OURS := shared stage1_align stage2_fusion
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed and was not found; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing the pinned dependencies into $(VENV) (about a minute and 6 GB the first time)"
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv && \
	  $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[test]' && \
	  { $(BIN)/python -W ignore -m compileall -q -j 0 -x '$(UNUSED)' $(VENV)/lib $(OURS) > /dev/null || true; } || \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) runs
