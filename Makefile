# `make quickstart` and `make test` are all one needs to begin; `make help` lists the rest.
# PYTHON=/path/to/python chooses the interpreter, otherwise the newest one that works is taken.

python := .venv/bin/python
quickstart := runs/quickstart
ladder := runs/ladder
parallel := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help quickstart ladder test test-all lint format venv
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

quickstart: ## train a small transformer on Python source code, and read what it writes
	@.ci/venv
	@$(python) -m data.build --config=configs/corpora/quickstart.py --out=$(quickstart)/data
	@$(python) -m train --config=configs/quickstart.py --workdir=$(quickstart)
	@echo "To start afresh: rm -r $(quickstart)"

ladder: ## train a ladder of small runs, and see whether its law predicts the largest (half an hour)
	@.ci/venv
	@$(python) -m data.build --config=configs/corpora/ladder.py --out=$(ladder)/data
	@$(python) -m scaling.ladder --config=configs/ladder.py --out=$(ladder) --workers=2 \
		--sizes=4x32,4x48,4x64,4x96 --tokens=300e3,600e3,12e5,24e5 --target=4x128:5e6

test: ## the tests, but for the ones that take minutes
	@.ci/venv test
	@$(python) -m pytest $(parallel)

test-all: ## all tests
	@.ci/venv test
	@$(python) -m pytest $(parallel) -m "slow or not slow"

lint: ## style, types, and who may import whom
	@.ci/venv test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

format: ## put the code into its standard form
	@.ci/venv test
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

venv: ## only install, with what the tests need
	@.ci/venv test
