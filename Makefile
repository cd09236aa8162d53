# The same commands for people and for CI. `make demo` and `make test` need nothing but Python, Java 17 and Maven.
.DEFAULT_GOAL := help
SHELL := /bin/bash
UV_VERSION := 0.13.9
PYTHON ?= python3

# uv from the machine if it is there, otherwise a pinned one in a folder of the project.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
SYNC := $(UV) sync --frozen --quiet $(addprefix --extra ,models stream embedded local otel serve ui redact registry) --group docs --group release
RUN := .venv/bin
TEST := $(RUN)/pytest --durations=10
# Tests that share no broker: two at a time.
TEST_TWO := $(TEST) -n 2 --dist worksteal
# Tests that wait for their broker half of the time: three files at a time, by processes that each have a broker.
TEST_THREE := $(TEST) -n 3 --dist loadfile --no-loadscope-reorder
# Tests that run tiny models (to import torch and transformers alone takes ten seconds, on both cores), and those of `make lint`.
NOT_FAST := tests/unit/test_architecture.py \
  $(addprefix tests/unit/el4ner/,engines/exllama engines/torch engines/served/test_served_engine.py \
  $(patsubst %,engines/test_%.py,capturing constraint placing rendering sdpa) \
  $(patsubst %,models/test_%.py,convert prepare self_checks)) \
  $(addprefix tests/unit/,bench/test_gpu.py bench/test_gpu_lease.py bench/test_launches.py \
  workers/cli/test_models_gpu.py workers/cli/test_standard_output.py workers/serve/test_http_app.py \
  workers/serve/test_service.py)
# Some machines (containers, CI) have Python compile every module anew in every process: 5 s at each start of a worker.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env demo test test-fast test-slow test-long test-search test-extras test-gpu test-chaos lint docs release schemas chart evidence screenshots format bench bench-quick bench-quality bench-scaling gpu-pack bench-gpu example-opensearch example-postgresql kafka kafka-down clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

env: .venv/.stamp  ## create the environment from the lock file

.venv/.stamp: pyproject.toml uv.lock $(if $(findstring .uv/,$(UV)),.uv/bin/uv)
	@echo "creating the environment in .venv (about 2 GB to fetch the first time)"
	$(SYNC)
	@touch $@

demo: env  ## stream the sample through Kafka and the models, and show it tagged
	$(RUN)/el4ner demo

# SLOW=yes: the tests of `make test-slow` too. All are collected once, with one set of brokers, and a test that draws
# examples draws the many at once, not the few before.
test: env  ## every test but the slow ones (starts its own Kafka and Valkey): minutes; SLOW=yes: these too, as CI does
	$(TEST_TWO) $(if $(SLOW),-m "not long" --hypothesis-profile=thorough,-m "not slow") tests/unit
	$(TEST_THREE) -m "$(if $(SLOW),not long,not slow)" tests/integration tests/gpu

test-fast: env  ## tests without broker, cache or models, tiny ones included: under a minute on two cores
	$(TEST_TWO) -m "not slow" $(NOT_FAST:%=--ignore=%) tests/unit

test-slow: env  ## the tests that take long, and more examples of those that draw examples: minutes
	$(TEST_TWO) -m "(slow or hypothesis) and not long" --hypothesis-profile=thorough tests/unit
	$(TEST_THREE) -m "slow and not long" tests/integration

test-long: env  ## the slow tests that take minutes each, before a release: three brokers, kill -9 over real models, paper mode
	$(TEST_TWO) -m long tests/unit
	$(TEST_THREE) -m long tests/integration

test-search: env  ## look for examples that break what the drawing tests hold: twenty times as many, others each time
	$(TEST_TWO) -m "hypothesis" --hypothesis-profile=search tests/unit

# As in `make test-extras EXTRAS="base stream"`
test-extras: env  ## build wheel and archive, and try each extra in a fresh environment: 10 minutes, gigabytes of packages
	$(RUN)/python -m tools extras --uv $(UV) $(EXTRAS)

test-gpu: env  ## tests of the GPU engines; each says why it is skipped where there is no GPU
	$(RUN)/pytest -m gpu tests/gpu

# As in `make test-chaos SCENARIO=kill-workers SEED=7`. Without SEED: 1, 2 and one of the date (DATE=2026-11-26: of that day).
test-chaos: env  ## break the stream in every way, on three brokers, by three seeds, and count what is lost: some two hours
	$(RUN)/pytest tests/chaos/suite.py $(SCENARIO:%=--scenario %) $(SEED:%=--seed %) $(DATE:%=--date %)

lint: env  ## ruff, mypy --strict, and the rule that el4ner imports no Kafka, Faust or Redis
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/pytest -q tests/unit/test_architecture.py

docs: env  ## build the site into build/site, strictly
	NO_MKDOCS_2_WARNING=1 $(RUN)/python -m mkdocs build
	@echo "the site is build/site/index.html; with its search: $(RUN)/python -m http.server --directory build/site"

# Pinned, and built from their Go modules into a folder that git ignores, which takes minutes; so it is done once.
CHART := docker/helm/el4ner
CHART_TOOLS := build/chart
HELM := helm.sh/helm/v4/cmd/helm@v4.3.1
KUBECTL_VALIDATE := sigs.k8s.io/kubectl-validate@v0.0.4
KEDA := github.com/kedacore/keda/v2@v2.21.0
PROMETHEUS_OPERATOR := github.com/prometheus-operator/prometheus-operator@v0.85.0
# What the chart makes of others' kinds is checked by the schemas that they are installed with.
CRDS := keda.sh_scaledobjects keda.sh_triggerauthentications monitoring.coreos.com_podmonitors
MODULE_FOLDER = $$(go mod download -json $(1) | $(RUN)/python -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')

$(CHART_TOOLS)/helm:
	GOBIN=$(abspath $(CHART_TOOLS)) nice -n 19 go install $(HELM)

$(CHART_TOOLS)/kubectl-validate:
	GOBIN=$(abspath $(CHART_TOOLS)) nice -n 19 go install $(KUBECTL_VALIDATE)

$(CHART_TOOLS)/crds: | .venv/.stamp
	rm -rf $@.partly && mkdir -p $@.partly
	keda="$(call MODULE_FOLDER,$(KEDA))" && operator="$(call MODULE_FOLDER,$(PROMETHEUS_OPERATOR))" && \
	for crd in $(CRDS); do \
	  cat "$$keda/config/crd/bases/$$crd.yaml" > $@.partly/$$crd.yaml 2> /dev/null || \
	  cat "$$operator/example/prometheus-operator-crd/$$crd.yaml" > $@.partly/$$crd.yaml || exit 1; \
	done
	mv $@.partly $@

chart: env $(CHART_TOOLS)/helm $(CHART_TOOLS)/kubectl-validate $(CHART_TOOLS)/crds  ## check the Helm chart: lint, each example by the API's schemas, tests (needs Go; the first time minutes)
	@for values in $(CHART)/examples/*.yaml; do \
	  echo "$$values"; rendered=$(CHART_TOOLS)/rendered/$$(basename $$values .yaml); rm -rf "$$rendered"; \
	  $(CHART_TOOLS)/helm lint --strict --quiet $(CHART) --values "$$values" && \
	  $(CHART_TOOLS)/helm template tagger $(CHART) --values "$$values" --output-dir "$$rendered" > /dev/null && \
	  $(CHART_TOOLS)/kubectl-validate --version 1.30 --local-crds $(CHART_TOOLS)/crds "$$rendered" || exit 1; \
	done
	$(TEST) tests/unit/chart

schemas: env  ## make schemas/asyncapi.json, the chart's schema and those in Avro and Protobuf anew from the code, and say what the schemas break of what was released
	$(RUN)/python -m tools asyncapi
	$(RUN)/python -m tools records
	$(RUN)/python -m tools chart
	$(RUN)/python -m tools schemas

# As in `make release VERSION=0.2.0`, in a clean tree
release: env  ## make a release in dist/, and the changes of the tree that belong to it; publishes nothing: minutes
	@test -n "$(VERSION)" || { echo 'name the version: make release VERSION=0.2.0' >&2; exit 2; }
	$(RUN)/python -m tools release --uv $(UV) $(VERSION) $(ARGS)

evidence: env  ## prepare the shipped pools' evidence anew, after a change to a pool, the prompts or the proposers: minutes
	$(RUN)/python -m tools evidence

screenshots: env  ## capture the pictures of the page anew, for README and docs: a stream, real models, Chromium; ten minutes
	$(RUN)/python -m tools screenshots

format: env  ## let ruff format the code
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench: env  ## the benchmarks of bench/
	$(RUN)/python bench/load.py
	$(RUN)/python bench/tag.py

bench-quick: env  ## the headline figures, as ratios of one run: under four minutes
	$(RUN)/python bench/quick.py $(ARGS)

# As in `make bench-quality DATA="crossner/politics wnut17" ARGS="--limit 100 --html table.html"`
bench-quality: env  ## the table of what each part is worth, on the data sets in DATA="FOLDER FOLDER"
	@test -n "$(strip $(DATA))" || { echo 'name the data sets (folders with train, dev and test in CoNLL columns):' \
	  'make bench-quality DATA="path/to/crossner/politics path/to/crossner/ai path/to/wnut17"' >&2; exit 2; }
	$(RUN)/python bench/quality.py $(foreach folder,$(DATA),--data "$(folder)") $(ARGS)

bench-scaling: env  ## how cost grows with batch and pool: half an hour
	$(RUN)/python bench/scaling.py $(ARGS)

# As in `make gpu-pack ARGS="--prebuilt exllamav2_ext-….so.xz"`
gpu-pack: env  ## bring together what `make bench-gpu` needs on a borrowed machine without a network, in loads of 40 MiB
	$(RUN)/python bench/gpu/pack.py $(ARGS)

# Not `env`: a borrowed machine has its own Python with torch, and no network. As in `make bench-gpu ARGS="--minutes 5"`
bench-gpu:  ## everything that needs a GPU, in under ten minutes: tests, ceilings, speed (ARGS=--cpu: without one)
	$(or $(wildcard $(RUN)/python),$(PYTHON)) bench/gpu/run.py $(ARGS)

# As in `make example-opensearch ARGS="--limit 10 --once"`
example-opensearch: env  ## tag the sample into an index of OpenSearch, and stay to be asked (docs/search.md)
	$(RUN)/python -m examples.opensearch.run $(ARGS)

# As in `make example-postgresql ARGS="--limit 10 --once"`
example-postgresql: env  ## tag the sample into tables of PostgreSQL by Kafka Connect, and stay to be asked (docs/databases.md)
	$(RUN)/python -m examples.postgresql.run $(ARGS)

kafka: env  ## start Kafka and Valkey for this folder (`make kafka-down` stops them)
	$(RUN)/el4ner local up

kafka-down: env  ## stop what `make kafka` started
	$(RUN)/el4ner local down

clean:  ## remove what is made: environment, local services' data, caches
	rm -rf .venv .uv .el4ner build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
