# Every command sets up what it needs: a virtual environment in .venv with the package and the extras that the command uses.
# PYTHON=python3.13 chooses another interpreter, VENV=DIR another environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard src_pyx/fastbp/*)
PYTEST := $(BIN)/python -m pytest
KERNEL_TESTS := $(addprefix tests/test_,functional.py functional_units.py table_units.py losses.py ulp.py network.py engine_units.py composites.py \
	optimizers.py steps.py)

SKLEARN_RELEASES := 1.6 1.7 1.8 1.9

.PHONY: help demo test test-others test-estimators test-debug test-ulp test-package test-sklearn bench compare sweep bars lint build clean

help:
	@echo "make demo | test | test-debug | test-ulp | test-package | test-sklearn | bench | compare | sweep | bars | lint | build | clean"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# One stamp for each set of extras; the package itself is rebuilt when a source of the compiled modules has changed.
$(VENV)/installed-%: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet -e ".[$*]"
	@touch $@

demo: $(VENV)/installed-demo
	$(BIN)/fastbp demo

# Everything with the best instruction set; what depends on the kernels also with each of the others that the processor has. Two processes at
# first, then one alone: some of its tests look at threads and at the clock.
test: $(VENV)/installed-test
	@$(MAKE) --no-print-directory -j2 test-others test-estimators
	$(PYTEST) --ignore-glob="tests/test_sklearn_*" $(ARGS)

# SCIPY_ARRAY_API is what one of scikit-learn's checks asks for.
test-estimators: $(VENV)/installed-test
	SCIPY_ARRAY_API=1 $(PYTEST) -q tests/test_sklearn_*.py $(ARGS)

test-others: $(VENV)/installed-test
	@for isa in $$($(BIN)/python -c "from fastbp import _dispatch; print(*_dispatch.supported()[1:])"); do \
	    echo "FASTBP_ISA=$$isa"; FASTBP_ISA=$$isa $(PYTEST) -q $(KERNEL_TESTS) $(ARGS) || exit 1; done

test-ulp: $(VENV)/installed-test
	$(PYTEST) tests/test_ulp.py -m ulp_full -s

# Built with checks into an environment of its own, from a copy: the compiled modules of the tree stay as they are.
test-debug:
	rm -rf build/debug && mkdir -p build/debug
	cp -r setup.py pyproject.toml MANIFEST.in Makefile *.md LICENSE fastbp src_pyx tests examples bench docs tools build/debug/
	rm -f build/debug/fastbp/*.so
	test -x $(VENV)-debug/bin/python || $(PYTHON) -m venv $(VENV)-debug
	cd build/debug && FASTBP_DEBUG=1 $(abspath $(VENV)-debug)/bin/pip install --quiet -e ".[test]"
	cd build/debug && $(abspath $(VENV)-debug)/bin/python -m pytest $(ARGS)

# The sdist, the wheel from it, and that wheel in an environment of its own, with the sources out of reach.
test-package:
	tools/check_package.sh $(PYTHON)

# The estimators with each release of scikit-learn that they know: a wheel built once, an environment for each release.
test-sklearn: $(addprefix test-sklearn-,$(SKLEARN_RELEASES))

# bin/pytest, not python -m pytest: the package under test is the installed one.
test-sklearn-%: $(VENV)-sklearn-%/installed
	@echo "scikit-learn $*"
	cd tests && SCIPY_ARRAY_API=1 $(abspath $(VENV)-sklearn-$*)/bin/pytest test_sklearn_*.py $(ARGS)

.PRECIOUS: $(VENV)-sklearn-%/installed
$(VENV)-sklearn-%/installed: build/sklearn/built
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet "$$(echo build/sklearn/*.whl)[test]" "scikit-learn==$*.*"
	$(@D)/bin/pip install --quiet --force-reinstall --no-deps build/sklearn/*.whl
	@touch $@

build/sklearn/built: $(BIN)/python $(SOURCES) $(wildcard fastbp/*.py fastbp/*/*.py)
	rm -rf build/sklearn
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/sklearn .
	@touch $@

bench: $(VENV)/installed-bench
	$(PYTEST) bench --benchmark-only --benchmark-columns=min,median,rounds --benchmark-group-by=group $(ARGS)

compare: $(VENV)/installed-bench
	$(BIN)/python -m bench.compare $(ARGS)

sweep: $(VENV)/installed-bench
	$(BIN)/python -m bench.sweep $(ARGS)

# Everything that the project sets itself bars on, one after another: about twenty minutes on a machine that does nothing else.
bars: $(VENV)/installed-bench
	$(BIN)/python -m bench.compare $(ARGS)
	$(BIN)/python -m bench.sweep --only sweep
	$(BIN)/python -m bench.sweep --only peak --threads 2
	$(BIN)/python -m bench.elementwise
	$(BIN)/python -m bench.activations
	$(BIN)/python -m bench.steps
	$(BIN)/python -m bench.units
	$(BIN)/python -m bench.sparse
	$(BIN)/python -m bench.updates
	$(BIN)/python -m bench.second_order
	$(BIN)/python -m bench.sklearn_fits
	$(BIN)/python -m bench.sklearn_fits --threads 1 --only lines
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.busy
	$(BIN)/python -m bench.memory --large

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src_pyx
	$(BIN)/mypy

build: $(BIN)/python
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build

clean:
	rm -rf build dist *.egg-info fastbp/*.so $(VENV) $(VENV)-debug $(VENV)-sklearn-*

# The same tests, to see what they find and what they reach. Both build a copy of the tree in build/ (about three minutes), which stays for
# the next time. ARGS="--only erf-seam" or ARGS="--tests DIR" goes on to the tool.
.PHONY: test-mutants coverage

test-mutants: $(VENV)/installed-test,coverage
	$(BIN)/python tools/mutants.py $(ARGS)

coverage: $(VENV)/installed-test,coverage
	$(BIN)/python tools/covered.py --output build/coverage.json $(ARGS)

KERNEL_TESTS += tests/test_kernel_edges.py
