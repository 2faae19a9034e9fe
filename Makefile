# `make demo` and `make test` are all a newcomer needs; both set up what they use.

PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
STAMP := $(VENV)/.installed
BENCH_STAMP := $(BENCH)/.installed
TEST_ENV := OMP_NUM_THREADS=1
PURELIB_CODE := 'import sysconfig; print(sysconfig.get_path("purelib"))'
PURELIB := $(BIN)/python -c $(PURELIB_CODE)

.PHONY: help install demo serve test test-slow lint check bench bench-gpu docs docs-serve screenshots clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "spikeproof needs Python 3.11 or newer; say make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up $(VENV); torch alone is several GB, so this takes minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(BENCH_STAMP): $(STAMP) benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	@# The product's packages are seen from here, so torch is not installed twice.
	$(PURELIB) | sed 's/.*/import site; site.addsitedir("&")/' > "$$($(BENCH)/bin/python -c $(PURELIB_CODE))/product.pth"
	$(BENCH)/bin/python -m pip install --quiet --no-deps --requirement benchmarks/requirements.txt
	@touch $@

install: $(STAMP) ## make .venv with the product and its test tools

demo: $(STAMP) ## train, attack and rank ResNet-20 in three variants on real digits
	@$(BIN)/spikeproof demo

serve: $(STAMP) ## the embedded service at http://127.0.0.1:8000
	@$(BIN)/spikeproof serve

test: $(STAMP) ## every test but the slow ones
	$(TEST_ENV) $(PYTEST) -m 'not slow' --numprocesses 2 --dist loadgroup

test-slow: $(BENCH_STAMP) ## the slow tier: real training, goldens against the peers
	$(TEST_ENV) $(BENCH)/bin/python -m pytest -m slow --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint ## lint, types, migration drift and quick tests: before every commit
	$(TEST_ENV) $(PYTEST) -m 'not slow' -q --numprocesses 2 --dist loadgroup tests/architecture tests/docs/test_site.py tests/app/domain tests/app/storage/test_migrations.py

bench: $(BENCH_STAMP) ## every comparison with the peers, on one thread of a CPU, in under 20 minutes
	OMP_NUM_THREADS=1 $(BENCH)/bin/python -W ignore -m benchmarks.bench

bench-gpu: $(BENCH_STAMP) ## the same on a GPU
	$(BENCH)/bin/python -W ignore -m benchmarks.bench --device cuda

docs: $(STAMP) ## the documentation site, as build/docs/index.html; a broken link stops it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(STAMP) ## the same at http://127.0.0.1:8001, built anew whenever a page is saved
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8001

screenshots: $(STAMP) ## docs/images from a running service: make screenshots URL=http://127.0.0.1:8000
	$(BIN)/python docs/screenshots.py --url $(or $(URL),http://127.0.0.1:8000)

clean: ## remove the environments
	rm -rf $(VENV) $(BENCH)
