# Everything a person does here, one word each. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install run test bench kafka check lint types chaos lock

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## create .venv with the locked dependencies

$(INSTALLED): pyproject.toml requirements.lock schemas/avro_kernel.pyx
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or later; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(INSTALLED)

run: install ## start the whole stack on 127.0.0.1, data in ./data
	$(BIN)/headrace up

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types ## ruff and mypy

test: check ## everything CI runs
	$(BIN)/pytest --numprocesses 2 --dist loadfile

bench: install ## measure this version; BENCH="--only plain" or another option of python -m bench
	$(BIN)/python -m bench $(BENCH)

kafka: install ## fetch Apache Kafka, which the tests use where Java and Maven are
	$(BIN)/python -m tests.kafka.server

SEED ?= $(shell date +%s)
MINUTES ?= 8
BROKER ?= both

chaos: install ## faults by SEED= for MINUTES= on BROKER=embedded, kafka or both, then everything is recounted
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) --broker $(BROKER)

lock: ## rewrite requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url --no-header pyproject.toml --output-file requirements.lock
