# One environment, .venv, for everything; it is made when first needed and again when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow docs pairs clean

demo: .venv/installed
	$(BIN)/ipmgan train --objective wgan --lipschitz clip

test: .venv/installed
	$(BIN)/python -m pytest

slow: .venv/installed
	$(BIN)/python -m pytest -m slow

docs: .venv/installed
	$(BIN)/mkdocs build --strict

pairs: .venv/installed
	$(BIN)/python -m ipmgan.testing.pairs docs/pairs.md

.venv/installed: pyproject.toml $(wildcard plugins/*/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]' $(addprefix --editable ,$(dir $(wildcard plugins/*/pyproject.toml)))
	touch $@

clean:
	rm -rf .venv runs site
