# make demo   the whole path on this machine   (STUDY=path, PACS=orthanc)
# make viewer the same through Orthanc, and OHIF to look at it   (STUDY=path)
# make test   everything that must pass   (JOBS=2: tests at a time)
# make check  format, lint, types, imports, fast tests
# make setup  .venv with everything, each file by its hash
# make lock   requirements/*.lock for what pyproject.toml asks for   (LOCK=--upgrade: newest versions)
# make sbom   var/sbom.json: every package of .venv and our models, CycloneDX 1.6
# make fuzz   strangers' bytes against listener, reception, uploads, decoders, settings   (CASES=100000 of each, resumes)
# make chaos  faults against a whole installation; nothing may be lost   (FAULTS=200 SEED=1, resumes)
# make soak   many studies: memory, descriptors, threads, database   (STUDIES=5000)
# make bench-ingest    objects per second beside Orthanc and storescp   (ROUNDS=3)
# make soak-listener   the listener's memory over 10,000 associations and 100,000 bare connects
PYTHON ?= python3
BIN := .venv/bin
export DERM_TEST_DATA ?= $(abspath $(wildcard ../shared/data))
PACS ?= store
STUDY ?=
OHIF := var/viewer/ohif
CASES ?= 100000
FAULTS ?= 200
SEED ?= 1
STUDIES ?= 5000
LOCK ?=
JOBS ?= 2
COMPILE = $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --only-binary :all: --emit-build-options $(LOCK)
INSTALL = $(BIN)/pip install -q --require-hashes -r
OURSELVES = $(BIN)/pip install -q --no-deps --no-build-isolation -e .
ROUNDS ?= 3

.PHONY: setup demo viewer check lint test peers lock sbom fuzz chaos soak bench-ingest bench-models soak-listener clean

setup: .venv/with-everything

demo: .venv/with-demo
	$(BIN)/cds-plugin demo --pacs $(PACS) $(if $(STUDY),--study "$(STUDY)")

viewer: .venv/with-demo
	deploy/viewer/get-ohif $(OHIF)
	$(BIN)/cds-plugin demo --pacs orthanc --viewer $(OHIF) $(if $(STUDY),--study "$(STUDY)")

check: lint
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal -m "not slow"

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup peers check
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder -m slow

peers:
	tests/get-peers

fuzz: .venv/with-fuzz
	nice -n 10 $(BIN)/python tests/fuzz/fuzz.py --cases $(CASES)

chaos: setup peers
	nice -n 10 $(BIN)/python tests/chaos/campaign.py --faults $(FAULTS) --seed $(SEED)

soak: setup peers
	nice -n 15 $(BIN)/python tests/chaos/soak.py --studies $(STUDIES)

lock: setup
	$(COMPILE) --extra worker --extra embedded --extra train --extra dev pyproject.toml requirements/build.in -o requirements/develop.lock
	$(COMPILE) -c requirements/develop.lock --extra worker --extra embedded pyproject.toml requirements/build.in -o requirements/product.lock
	$(COMPILE) -c requirements/develop.lock --extra fuzz pyproject.toml requirements/build.in -o requirements/fuzz.lock

sbom: setup
	$(BIN)/python deploy/sbom.py --out var/sbom.json

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/with-demo: .venv/bin/pip pyproject.toml requirements/product.lock
	$(INSTALL) requirements/product.lock
	$(OURSELVES)
	touch $@

.venv/with-everything: .venv/bin/pip pyproject.toml requirements/develop.lock
	$(INSTALL) requirements/develop.lock
	$(OURSELVES)
	touch .venv/with-demo $@

.venv/with-fuzz: .venv/with-everything requirements/fuzz.lock
	$(INSTALL) requirements/fuzz.lock
	touch $@

bench-ingest: setup peers
	$(BIN)/python -m benchmarks.ingest --rounds $(ROUNDS) --out docs/performance/ingest.json
	$(BIN)/python -m benchmarks.report

bench-models: setup
	$(BIN)/python -m benchmarks.models --out docs/performance/models.json

soak-listener: setup
	rm -f docs/performance/soak*.json
	$(BIN)/python -m benchmarks.soak --out docs/performance/soak.json
	$(BIN)/python -m benchmarks.report

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
