PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo docs test test-slow known-results bench-attacks bench-attack-speed bench-attack-strength lint setup clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@

setup: $(READY)

demo: $(READY)
	$(BIN)/fedsim run quickstart

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m docs.build

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint docs
	$(BIN)/pytest -n 2 --dist loadgroup

test-slow: $(READY)
	$(BIN)/pytest -m slow

known-results: $(READY)
	$(BIN)/pytest tests/known_results -m "slow or not slow" -s --write-table

bench-attacks: $(READY)
	$(BIN)/python -m tests.benchmarks.attack_cost

bench-attack-speed: $(READY)
	$(BIN)/python -m tests.benchmarks.attack_speed $(VICTIMS)

bench-attack-strength: $(READY)
	$(BIN)/python -m tests.benchmarks.attack_strength

# Needs npm and Chromium; where one is absent it says "not run" and fails, so that nobody reads it as passed.
check-report: $(READY)
	-npm install --silent --no-save --prefix build/axe axe-core
	$(BIN)/python -m tests.browser.check_report $(RUNS)

clean:
	rm -rf $(VENV) build *.egg-info
