# Everything from a fresh clone: `make demo`, `make test`. Needs Python >= 3.11 and a C++ compiler.
# Stamp files in .venv/.stamps remember what is installed, so a second run installs nothing. What takes
# more than a few lines is a script in tools/, which is given the environment's Python as PY.

PYTHON ?= python3
ENGINE ?= jax
BENCH ?= --quick
comma := ,
SEPCONV_TEST_ENGINES ?= jax,torch,tensorflow
TEST_ENGINES := $(subst $(comma), ,$(SEPCONV_TEST_ENGINES))

VENV := .venv
STAMPS := $(VENV)/.stamps
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

SOURCES := pyproject.toml CMakeLists.txt README.md \
  $(shell find src native -type f -not -name '*.pyc' -not -path '*/__pycache__*')
export MPLBACKEND := agg
export PY PYTHON

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo doctor test lint bench clean docs figures notebooks release gpu-test native-test bits coverage sanitize fuzz fuzz-models stress aarch64 keras-tests tidy

help: ## list the targets
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 15
	@echo "PYTHON=python3.13 picks the Python (now $(PYTHON)); ENGINE=torch or tensorflow the demo's engine;"
	@echo "SEPCONV_TEST_ENGINES=jax,torch the engines to test; BENCH= the options of sepconv bench (now $(BENCH))."

demo: $(STAMPS)/package $(STAMPS)/extra-demo $(STAMPS)/extra-$(ENGINE) ## train on real data with Keras' layers and with ours, and compare
	$(VENV)/bin/sepconv demo --engine $(ENGINE)

doctor: $(STAMPS)/package $(STAMPS)/extra-demo ## say what sepconv finds on this machine
	$(VENV)/bin/sepconv doctor

# What the tests need: the package, whose warnings are errors, the engines, and what examples need.
TESTED := $(STAMPS)/package-strict $(addprefix $(STAMPS)/extra-,dev demo notebooks examples export serve \
  $(TEST_ENGINES) $(if $(filter jax,$(TEST_ENGINES)),networks))
TESTED += $(if $(filter torch,$(TEST_ENGINES)),$(STAMPS)/geffnet)
# Tests are shared among two processes, which keeps two cores busy.
PYTEST = -m pytest -n 2 --dist worksteal
CLANG_FORMAT = $(VENV)/bin/clang-format --dry-run --Werror $(wildcard $(addprefix native/,*.h *.cc kernels/* program/*) tests/*/*.h tests/*/*.cc)

test: $(TESTED) ## check style and types and run the whole suite, on every engine
	@CLANG_FORMAT='$(CLANG_FORMAT)' PYTEST='$(PYTEST)' tools/test.sh $(TEST_ENGINES)

# The engines' wheels for a GPU are the user's to choose and to install into .venv, over those that are there.
# One process: JAX takes most of a GPU's memory for each.
gpu-test: $(STAMPS)/package $(addprefix $(STAMPS)/extra-,dev $(TEST_ENGINES)) ## test what happens on a GPU; SEPCONV_GPU_TESTS=cpu runs the same tests on the CPU
	@tools/each_engine.sh "$(TEST_ENGINES)" $(PY) -m pytest -rs tests/gpu

keras-tests: $(STAMPS)/package $(TEST_ENGINES:%=$(STAMPS)/extra-%) ## run Keras' own tests of its layers with ours in their place, on every engine
	@tools/each_engine.sh "$(TEST_ENGINES)" $(PY) tests/keras_tests.py

lint: $(STAMPS)/extra-dev ## check style, formatting and types
	$(PY) -m ruff format --check .
	$(CLANG_FORMAT)
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: $(STAMPS)/package $(STAMPS)/extra-bench $(STAMPS)/extra-$(ENGINE) ## time layers against other libraries, training steps against stock Keras
	$(VENV)/bin/sepconv bench $(BENCH)
	$(PY) benchmarks/training_step.py --engine $(ENGINE) --model eegnet
	$(PY) benchmarks/training_step.py --engine $(ENGINE) --model mobilenet

# --- what people read, and what is released ------------------------------------------------------

docs: $(STAMPS)/extra-docs ## build the documentation site into build/site, with no warning
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet --site-dir build/site
	@echo "build/site/index.html"

figures: $(STAMPS)/package $(STAMPS)/extra-demo ## draw the documentation's figures again
	$(PY) docs/figures/draw.py

notebooks: $(STAMPS)/package $(STAMPS)/extra-demo $(STAMPS)/extra-notebooks $(STAMPS)/extra-jax ## run the notebooks of examples/, each in at most three minutes
	KERAS_BACKEND=jax $(PY) examples/notebooks.py

release: ## tag the version that the changelog dates; the tag's push builds the wheels
	@tools/release.sh

# --- the native code by itself, and under pressure -----------------------------------------------
# They need cmake and ninja (apt-get install cmake ninja-build) and no Python but for the parts that say so.

SECONDS ?= 60
CLANG ?= clang++
CROSS ?= aarch64-linux-gnu-g++
QEMU ?= qemu-aarch64

native-test: ## test the C++ code on every instruction-set level that runs here
	tools/native.sh build/native
	build/native/tests/native/sepconv_native_test

bits: ## print a hash of the C++ code's results a level and a number of threads, to compare with another commit's
	@tools/native.sh build/native >&2
	@build/native/tests/native/sepconv_native_bits

sanitize: $(STAMPS)/build $(STAMPS)/extra-dev ## the C++ tests and the core tests under Address-, UndefinedBehavior- and ThreadSanitizer
	tools/sanitize.sh

tidy: $(STAMPS)/build $(STAMPS)/extra-tidy ## look for mistakes and waste in the C++ code with clang-tidy
	tools/tidy.sh

# Of Python: the lines of the package that `make test` runs, in whatever process. Of the C++: see
# tools/coverage_native.sh.
.PHONY: coverage-python coverage-native
coverage: coverage-python coverage-native ## measure the tests: of Python 95% of the lines must run, of C++ 90%; slow

coverage-python: $(TESTED) $(STAMPS)/extra-coverage
	rm -f build/coverage/data*
	$(MAKE) test PYTEST='-m coverage run -m pytest --deselect tests/core/test_stress.py'
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report --skip-covered --show-missing --fail-under=95

coverage-native: $(TESTED) $(STAMPS)/extra-coverage
	tools/coverage_native.sh $(TEST_ENGINES)

fuzz: $(STAMPS)/package-strict $(STAMPS)/extra-dev $(TEST_ENGINES:%=$(STAMPS)/extra-%) ## fuzz the C++ code, the functions of every engine and programs' files, SECONDS each
	$(MAKE) fuzz-native
	for engine in numpy $(TEST_ENGINES); do \
	  $(PY) tests/fuzz/api.py --engine $$engine --seconds $(SECONDS) || exit 1; \
	  $(PY) tests/fuzz/half.py --engine $$engine --seconds $(SECONDS) || exit 1; \
	done
	$(PY) tests/fuzz/program_file.py --seconds $(SECONDS)
	$(if $(filter jax,$(TEST_ENGINES)),$(PY) tests/fuzz/convolutions.py)
	$(if $(filter jax,$(TEST_ENGINES)),$(PY) tests/fuzz/convolutions.py --dtype bfloat16)

.PHONY: fuzz-native
fuzz-native:
	@tools/needs.sh $(CLANG) "clang llvm"
	tools/fuzz_native.sh $(CLANG) $(SECONDS)

MODELS ?= 1000
fuzz-models: $(STAMPS)/package-strict $(STAMPS)/extra-dev $(TEST_ENGINES:%=$(STAMPS)/extra-%) ## random Keras models through every function on models, MODELS an engine; goes on where it ended
	@tools/each_engine.sh "$(TEST_ENGINES)" nice $(PY) tests/fuzz/models.py --models $(MODELS)
	@tools/each_engine.sh "$(TEST_ENGINES)" nice $(PY) tests/fuzz/models.py --models $(MODELS) --narrow

stress: $(STAMPS)/package-strict $(STAMPS)/extra-torch $(STAMPS)/geffnet ## threads, fork(), a million calls, ends of the interpreter: minutes each
	$(PY) tests/stress/stress.py threads
	$(PY) tests/stress/stress.py forks
	$(PY) tests/stress/stress.py memory
	$(PY) tests/stress/stress.py shutdown
	$(PY) tests/stress/stress.py processes
	$(PY) tests/stress/loader.py
	KERAS_BACKEND=torch $(PY) tests/stress/networks.py
	KERAS_BACKEND=torch $(PY) tests/stress/programs.py
	$(PY) tests/stress/torch_networks.py

aarch64: ## cross compile the C++ tests for aarch64 and run them in QEMU
	@tools/needs.sh $(CROSS) g++-aarch64-linux-gnu $(QEMU) qemu-user
	tools/native.sh build/aarch64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_CXX_COMPILER=$(CROSS)
	$(QEMU) -L /usr/aarch64-linux-gnu build/aarch64/tests/native/sepconv_native_test 0.2

# --- wheels, and older versions of what they work with --------------------------------------------

.PHONY: wheel test-lowest test-middle
wheel: $(STAMPS)/venv ## build a wheel for this Python (Linux) and try it in a bare environment
	tools/wheel.sh

test-lowest: wheel ## test with the lowest versions that pyproject.toml allows
	@tools/versions.sh lowest $(TEST_ENGINES)

test-middle: wheel ## test with the versions of requirements/middle.txt, between the lowest and the newest
	@tools/versions.sh middle $(TEST_ENGINES)

clean: ## remove the environment, the build and all caches
	rm -rf $(VENV) build dist report.html sepconv-bench .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sepconv needs Python 3.11 or newer; pick one with: make PYTHON=python3.13"; exit 1; }
	@command -v "$${CXX:-c++}" >/dev/null || \
	  { echo "sepconv needs a C++ compiler, e.g.: sudo apt-get install g++"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	touch $@

$(STAMPS)/build: requirements/build.txt pyproject.toml $(STAMPS)/venv
	$(PIP) -r requirements/build.txt
	touch $@

# The requirements of one of pyproject's extras, and the package's own, without the package.
$(STAMPS)/extra-%: pyproject.toml requirements/test.txt tools/requirements.py $(STAMPS)/venv
	@$(PY) tools/requirements.py dependencies $* > $(STAMPS)/$*.txt
	$(PIP) -c requirements/test.txt -r $(STAMPS)/$*.txt
	touch $@

# PyTorch networks to test with. They ask for torchvision, which they need for files of weights alone.
$(STAMPS)/geffnet: $(STAMPS)/venv
	$(PIP) --no-deps geffnet==1.0.2
	touch $@

# The build folder is kept, so only what changed is compiled.
$(STAMPS)/package: $(SOURCES) $(STAMPS)/build
	$(PIP) --no-build-isolation --no-deps --force-reinstall .
	$(PIP) numpy
	touch $@

# The same with warnings as errors, which is what the tests ask for; it serves the demo too.
$(STAMPS)/package-strict: $(SOURCES) $(STAMPS)/build
	$(PIP) --no-build-isolation --no-deps --force-reinstall \
	  -Ccmake.define.SEPCONV_WERROR=ON -Cbuild-dir=build/strict-{wheel_tag} .
	touch $(STAMPS)/package $@
