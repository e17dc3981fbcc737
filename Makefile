# Every target prepares .venv first (`setup`), so each works as the only command in a fresh clone.
# Needs make and, on anything but Debian, a Python >= 3.11; on Debian `setup` installs what is missing and says so.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
SOURCES := edged tests $(wildcard benchmarks)

# Where every branch is a decision: 100 % of lines and branches.
PURE := edged/policy/*,edged/ingest/*,edged/pipeline/*,edged/sync/*,edged/mqtt/codec*

.PHONY: help setup check fmt docs test test-313 test-system clean-debian torture power-cuts sync-faults accelerator-faults evidence demo bench bench-sync bench-store bench-inference bench-hosting wheel install install-hub lock clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with the edged command in it (PYTHON=python3.13 chooses the interpreter)

$(STAMP): requirements/build.txt requirements/lock.txt pyproject.toml scripts/setup.sh
	@scripts/setup.sh "$(VENV)" "$(PYTHON)"
	@touch $@

check: setup ## ruff, formatting, mypy --strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports --no-cache

docs: setup ## write the pages that are made from code
	$(BIN)/python -m edged.config.reference docs/reference/configuration.md
	$(BIN)/python -m edged.ops.mode_reference docs/modes.md
	$(BIN)/python -m edged.ops.sensors.reference docs/reference/device-health.md
	$(BIN)/python -m edged.infer.fault_reference docs/reference/runtime-errors.md
	$(BIN)/python -m edged.hub.reference docs/reference/hub.md
	$(BIN)/python -m tests.contract.pages docs/reference

fmt: setup ## format, and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup ## all tests; 95 % of edged covered, 100 % of the pure decisions
	@scripts/test_packages.sh || true  # without them some tests skip, and say so
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=95
	$(BIN)/coverage report --skip-covered --fail-under=100 --include='$(PURE)'

test-313: ## the same tests under Python 3.13, where there is one
	@found=$$(scripts/find_python.sh 3.13) || { echo "test-313: no Python 3.13 on this machine, nothing tested"; exit 0; }; \
	$(MAKE) test VENV=.venv-3.13 PYTHON="$$found"

test-system: setup ## the installed service under the systemd of a Debian 12 (root)
	@tree=$$(scripts/system_root.sh) && EDGED_SYSTEM_ROOT="$$tree" $(BIN)/python -m pytest tests/system

clean-debian: ## make demo and make test, each as the only command on a Debian with nothing but make and git (root)
	@scripts/clean_debian.sh 'demo SECONDS=30' test

torture: setup ## kill the daemon with -9 a thousand times under load (KILLS=200: fewer)
	@$(BIN)/python scripts/torture.py $(if $(KILLS),--kills $(KILLS))

power-cuts: setup ## cut the power of the daemon's disk fifty times under load (root; CUTS=200: more)
	@scripts/test_packages.sh || true
	@$(BIN)/python scripts/power_cuts.py $(CUTS)

sync-faults: setup ## every fault of the way home, the long ones too (half an hour; root for the worst lines)
	@scripts/test_packages.sh || true
	EDGED_THOROUGH=1 $(BIN)/python -m pytest --no-cov -o faulthandler_timeout=1800 tests/fault/sync

accelerator-faults: setup ## 200 deaths, hangs and returns of an accelerator under load, none of them costs an input
	EDGED_THOROUGH=1 $(BIN)/python -m pytest --no-cov -o faulthandler_timeout=1800 -s tests/fault/daemon/test_accelerator.py tests/fault/hosting/test_dying.py

evidence: setup ## run every command of docs/evidence.md and write what it showed into the page
	@$(BIN)/python scripts/evidence.py --write

demo: setup ## a plant, a broker, the daemon and a SCADA view (SECONDS=30 ends by itself, CHAOS=1 breaks things, ACCELERATOR=1 kills the accelerator)
	@$(BIN)/edged demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(CHAOS),--chaos) $(if $(ACCELERATOR),--accelerator)

bench: setup ## the figures against C, Node-RED and a naive daemon (QUICK=1: within five minutes)
	@$(BIN)/python -m benchmarks.run $(if $(QUICK),--quick)

bench-sync: setup ## the figures of the way home: drain, alarms and live results on a thin line, memory
	@missed=0; for figure in drain alarm live memory; do $(BIN)/python -m benchmarks.sync_$$figure || missed=1; done; exit $$missed

bench-store: setup ## the figures of the store: insert rate with 10 million unsent rows, stalls while it gives space back, ageing
	@set -e; for figure in growth drain pressure; do $(BIN)/python -m benchmarks.store_retention $$figure; done

bench-inference: setup ## what the daemon costs a model of MobileNetV2's size, what INT8 and batches gain
	@$(BIN)/python -m benchmarks.inference

bench-hosting: setup ## models in a process of their own: the hand-over, how soon a hang and a crash are noticed, memory
	@$(BIN)/python -m benchmarks.handoff

wheel: setup ## dist/edged-*.whl
	@rm -rf dist
	@$(BIN)/python -m pip --quiet wheel --no-deps --no-build-isolation --wheel-dir dist .

install: wheel ## edged as a systemd service: /usr/lib/edged, /usr/bin/edged, unit, user (root, or DESTDIR=FOLDER)
	@scripts/install.sh "$(VENV)" dist/edged-*.whl edged "$(DESTDIR)"

install-hub: wheel ## edged-hub as a systemd service: /usr/lib/edged-hub, /usr/bin/edged-hub, unit, user (root, or DESTDIR=FOLDER)
	@scripts/install.sh "$(VENV)" dist/edged-*.whl edged-hub "$(DESTDIR)"

lock: setup ## resolve pyproject.toml anew into requirements/*.txt
	@scripts/lock.sh

clean: ## remove everything that setup, tests and checks made
	rm -rf .venv .venv-3.13 .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .coverage .coverage.* benchmarks/.cache benchmarks/build
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
