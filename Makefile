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
.PHONY: help demo doctor test lint bench clean

help: ## list the targets
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12
	@echo "PYTHON=python3.13 picks the Python (now $(PYTHON)); ENGINE=torch or tensorflow the demo's engine;"
	@echo "SEPCONV_TEST_ENGINES=jax,torch the engines to test; BENCH= the options of sepconv bench (now $(BENCH))."

demo: $(STAMPS)/package $(STAMPS)/extra-demo $(STAMPS)/extra-$(ENGINE) ## train on real data with Keras' layers and with ours, and compare
	$(VENV)/bin/sepconv demo --engine $(ENGINE)

doctor: $(STAMPS)/package $(STAMPS)/extra-demo ## say what sepconv finds on this machine
	$(VENV)/bin/sepconv doctor

# Every part runs, whatever came of the ones before it; one that fails fails the whole.
test: $(STAMPS)/package-strict $(STAMPS)/extra-dev $(STAMPS)/extra-demo $(TEST_ENGINES:%=$(STAMPS)/extra-%) ## check style and types and run the whole suite, on every engine
	@failed=; \
	run() { echo "== $$1"; shift; env "$$@" || failed=yes; }; \
	run "formatting" $(PY) -m ruff format --check .; \
	run "style" $(PY) -m ruff check .; \
	run "types" $(PY) -m mypy; \
	run "core and command line" $(PY) -m pytest tests/core tests/cli; \
	for engine in $(TEST_ENGINES); do \
	  run "engines, layers and models on $$engine" SEPCONV_TEST_ENGINES=$$engine KERAS_BACKEND=$$engine \
	    $(PY) -m pytest tests/engines tests/layers tests/models; \
	done; \
	if [ -n "$$failed" ]; then echo "make test: FAILED"; exit 1; fi; \
	echo "make test: all passed on $(TEST_ENGINES)"

lint: $(STAMPS)/extra-dev ## check style, formatting and types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: $(STAMPS)/package $(STAMPS)/extra-bench $(STAMPS)/extra-$(ENGINE) ## time layers against other libraries, training steps against stock Keras
	$(VENV)/bin/sepconv bench $(BENCH)
	$(PY) benchmarks/training_step.py --engine $(ENGINE) --model eegnet
	$(PY) benchmarks/training_step.py --engine $(ENGINE) --model mobilenet

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
