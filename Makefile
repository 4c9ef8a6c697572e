# Everything runs in .venv; the first target that needs it creates it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.landseer-installed

.PHONY: help demo test up export lint fast portable test-models stack bench-serving bench-instrumentation bench-reranking bench-index bench-merging bench-backup bench-bulk results results-boxes results-expansion expansion-sweep results-verified results-regional very-same-thing published load overload dashboards chaos fuzz sbom proto clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-21s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml ops/setup.sh
	@PYTHON="$(PYTHON)" bash ops/setup.sh $(VENV)
	@touch $@

demo: $(STAMP) ## Set up, export, start the servers, index photographs, search, show the hits, stop
	@$(BIN)/python -m landseer.ops.demo

# Tests on a real Triton leave half of two cores idle, as they wait for servers to start and to end. The others run
# beside, and give way, for those on Triton have limits of time.
test: $(STAMP) ## Set up and run all checks and tests, including those on a real Triton (about half an hour on 2 cores)
	@$(MAKE) --no-print-directory -j 2 offline served

# The two halves of `test`. Their lines mix, so those of one are marked.
.PHONY: offline served
offline:
	@set -o pipefail; nice -n 10 $(MAKE) --no-print-directory lint 2>&1 | sed -u 's/^/no Triton: /'
	@set -o pipefail; nice -n 10 $(MAKE) --no-print-directory fast 2>&1 | sed -u 's/^/no Triton: /'

served:
	@$(MAKE) --no-print-directory test-models
	@$(MAKE) --no-print-directory stack

up: $(STAMP) model_repository/manifest.json ## Run Triton and the server until Ctrl-C
	@$(BIN)/landseer up

export: $(STAMP) ## Write model_repository/ (ARGS="--backbone resnet50 ...")
	@$(BIN)/python export/all.py $(ARGS)

model_repository/manifest.json: | $(STAMP)
	@$(BIN)/python export/all.py

lint: $(STAMP) ## Check style, types, import layers and the API
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@bash ops/typecheck.sh $(BIN)
	@$(BIN)/lint-imports
	@cd client/proto && $(CURDIR)/$(BIN)/buf lint

# Threads of each test process. Two processes of two threads on two cores wait for each other's threads at every loop of
# torch: a training that takes 12 s of processor time with one thread took more than 140 s with two beside other work.
THREADS ?= 1

fast: $(STAMP) ## Run the tests that need no Triton
	@OMP_NUM_THREADS=$(THREADS) OPENBLAS_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS) \
	    $(BIN)/python -m pytest -q -m "not stack" -n auto --maxprocesses 4 --dist worksteal

# How oneDNN (torch and OpenVINO), MKL, OpenBLAS, ATen, FAISS and NumPy are held to older instructions. OpenVINO 2026 needs
# AVX2: with oneDNN alone held to SSE it does not compile a model ("bad combination"). ONNX Runtime has no such setting.
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 FAISS_OPT_LEVEL=avx2
SSE := ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem ATEN_CPU_CAPABILITY=default \
    FAISS_OPT_LEVEL=generic NPY_DISABLE_CPU_FEATURES=AVX2,FMA3

portable: $(STAMP) ## Run the fast tests as on other processors: AVX2 alone, SSE alone, two threads
	@for settings in "$(AVX2)" "$(SSE)" "THREADS=2"; do \
	    echo "$$settings"; \
	    env $$settings $(MAKE) --no-print-directory fast || exit 1; \
	done

test-models: $(STAMP) ## Export what `make stack` serves, unless it is there (with one thread: mypy runs beside it)
	@OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m stack.repository

stack: $(STAMP) ## Run the tests on a real Triton with the exported models
	@$(BIN)/python -m pytest -q -m stack $$(grep -rl --include='test_*.py' 'pytest\.mark\.stack' tests)

bench-serving: $(STAMP) model_repository/manifest.json ## Compare `describe` through Triton with the same graph in process
	@$(BIN)/python -m landseer.ops.bench.serving

bench-instrumentation: $(STAMP) model_repository/manifest.json ## Measure the cost of metrics, logs and traces
	@$(BIN)/python -m landseer.ops.bench.instrumentation

bench-reranking: $(STAMP) model_repository/manifest.json ## Measure whole searches by id among a million entries, and co-attention (PHOTOGRAPHS="SPEC" ARGS="..."; 34 GB of disk)
	@$(BIN)/python -m landseer.ops.bench.reranking --photographs "$(PHOTOGRAPHS)" $(ARGS)

bench-index: $(STAMP) model_repository/manifest.json ## Measure every index against exact search; writes docs/reports/index.md (PHOTOGRAPHS="SPEC", or ARGS="--like-store DIR --entries ...")
	@$(BIN)/python -m landseer.ops.bench.index_bench $(if $(PHOTOGRAPHS),--photographs "$(PHOTOGRAPHS)") $(ARGS)

bench-merging: $(STAMP) ## Search while a new version of the index is built (STORE="FOLDER", which it changes; ARGS="--index ... --models ...")
	@$(BIN)/python -m landseer.ops.bench.index_merging "$(STORE)" $(ARGS)

bench-backup: $(STAMP) ## Measure backup, restore, export and import of 20,000 generated pictures, also while others are written (5 minutes)
	@$(BIN)/python -m landseer.ops.bench.backup $(ARGS)

bench-bulk: $(STAMP) model_repository/manifest.json ## Compare the rate of `landseer bulk` with the bare graph's, and see where its time goes (PICTURES="FOLDER ..." ARGS="..."; 5 minutes)
	@$(BIN)/python -m landseer.ops.bench.bulk --pictures-of $(PICTURES) $(ARGS)

results: $(STAMP) ## Train every head with three seeds and compare them (hours; TRAIN="SPEC" TEST="NAME=SPEC ..." DISTRACTORS="NAME=FOLDER ..." BACKBONES="NAME=WEIGHTS ..." ARGS="...")
	@$(BIN)/python -m landseer.ops.research.heads --train "$(TRAIN)" $(foreach one,$(TEST),--test "$(one)") \
	    $(foreach one,$(DISTRACTORS),--distractors "$(one)") \
	    $(foreach one,$(or $(BACKBONES),efficientnet_lite0),--backbone $(one)) $(ARGS)

results-boxes: $(STAMP) ## Measure whether boxes help with small things (TEST="SPEC" BACKGROUNDS="SPEC" PARTS=FILE ARGS="--detector NAME=KIND:FILE ...")
	@$(BIN)/python -m landseer.ops.research.boxes --test "$(TEST)" --backgrounds "$(BACKGROUNDS)" $(if $(PARTS),--parts "$(PARTS)") $(ARGS)

results-expansion: $(STAMP) model_repository/manifest.json ## Compare expansions without a network, by number of neighbours (TEST="NAME=SPEC ..." ARGS="...")
	@$(BIN)/python -m landseer.ops.research.expansion $(foreach one,$(TEST),--test "$(one)") $(ARGS)

expansion-sweep: $(STAMP) model_repository/manifest.json ## Judge the LAttQE that ships: alone, in augmented databases, in the default search (TRAIN="SPEC" TEST="NAME=SPEC ..." DISTRACTORS="NAME=FOLDER ..." ARGS="...")
	@$(BIN)/python -m landseer.ops.research.expansion_sweep --train "$(TRAIN)" \
	    $(foreach one,$(TEST),--test "$(one)") $(foreach one,$(DISTRACTORS),--distractors "$(one)") $(ARGS)

results-verified: $(STAMP) ## Compare numbers of verified hits that expand a query (ARGS="--test NAME=SPEC --distractors NAME=FOLDER ...")
	@$(BIN)/python -m landseer.ops.research.verified_hits $(ARGS)

results-regional: $(STAMP) ## Measure what local features add: co-attention, words, verification (TEST="SPEC ..." TRAIN="SPEC" ARGS="...")
	@$(BIN)/python -m landseer.ops.research.regional $(foreach one,$(TEST),--test "$(one)") --train "$(TRAIN)" $(ARGS)

very-same-thing: $(STAMP) model_repository/manifest.json ## Measure whether the served defaults find the very same thing (FLAT="SPEC ..." THINGS="SPEC ..." DISTRACTORS=DIR ARGS="...")
	@$(BIN)/python -m landseer.ops.research.very_same_thing $(foreach one,$(FLAT),--flat "$(one)") \
	    $(foreach one,$(THINGS),--things "$(one)") $(foreach one,$(DISTRACTORS),--distractors "$(one)") $(ARGS)

published: $(STAMP) ## Published checkpoints on Revisited Oxford and Paris, as their publishers run them (ARGS="revisitop:... --weights FILE")
	@$(BIN)/python -m landseer.ops.research.published $(ARGS)

load: $(STAMP) model_repository/manifest.json ## Load test with locust and k6, measured by Prometheus too (about 5 minutes)
	@$(BIN)/python -m landseer.ops.load.load_test

overload: $(STAMP) model_repository/manifest.json ## Measure what more load than capacity does; writes docs/reports/overload.md (about 8 minutes)
	@$(BIN)/python -m landseer.ops.load.overload

chaos: $(STAMP) model_repository/manifest.json ## Kill, hang, fill and damage the real processes; writes docs/reports/chaos.md (about 16 minutes; ARGS="...")
	@$(BIN)/python -m landseer.ops.chaos.command $(ARGS)

fuzz: $(STAMP) ## Hostile pictures and requests at full count; writes docs/reports/fuzz.md (about half an hour)
	@mkdir -p var && bash ops/record.sh fuzz \
	    "Decoding 250,000 hostile pictures and answering 100,000 hostile requests" -- bash ops/fuzz.sh $(BIN)

# Not in .venv: what it needs is no part of what it lists.
sbom: $(STAMP) ## Write var/sbom.json, a CycloneDX list of every package in .venv (seconds; the first time a minute)
	@test -x var/sbom-tool/bin/cyclonedx-py || { $(BIN)/python -m venv var/sbom-tool && \
	    var/sbom-tool/bin/pip install -q --disable-pip-version-check 'cyclonedx-bom>=7,<8'; }
	@var/sbom-tool/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
	    --no-validate -o var/sbom.json $(BIN)/python
	@echo "wrote var/sbom.json"

dashboards: $(STAMP) ## Generate ops/grafana/dashboards from ops/watch/boards
	@$(BIN)/python -m landseer.ops.watch.dashboards

proto: $(STAMP) ## Generate client/v1 from client/proto
	@bash ops/generate_proto.sh $(BIN)

clean: ## Remove the files of demo, export and up (not .venv)
	@rm -rf var model_repository/*/ model_repository/manifest.json model_repository/tensorrt.json
