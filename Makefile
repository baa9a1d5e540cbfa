# Every command sets up what it needs: a virtual environment in .venv with the package and the extras that the command uses.
# PYTHON=python3.13 chooses another interpreter, VENV=DIR another environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard src_pyx/fastbp/* src_pyx/fastbp/*/*)
PYTEST := $(BIN)/python -m pytest
# SCIPY_ARRAY_API is what one of scikit-learn's checks asks for. BLAS has one thread: with several processes, more only wait for each other.
TEST := SCIPY_ARRAY_API=1 OPENBLAS_NUM_THREADS=1 $(PYTEST)
JOBS ?= $(shell n=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); echo $$((n < 2 ? 2 : n)))
PARALLEL = -n $(JOBS) --dist worksteal --benchmark-disable
# Where ARGS="-k name" chooses none of a part's tests, pytest ends with 5.
OR_NONE := || [ $$? -eq 5 ]
# Files that have a test with the marker: the others need not be read.
KERNEL_TESTS = $(shell grep -l "pytest\.mark\.kernel" tests/test_*.py)
SERIAL_TESTS = $(shell grep -l "pytest\.mark\.serial" tests/test_*.py)
BRIDGE_TESTS = $(shell grep -l "pytest\.mark\.bridge" tests/test_*.py)

SKLEARN_RELEASES := 1.6 1.7 1.8 1.9
TORCH := 2.13.0

.PHONY: help demo test test-best test-others test-serial test-all test-bridges test-distributed test-dask test-freethreaded test-threads test-debug test-ulp test-package test-oldest test-sklearn test-docs test-mutants coverage docs bench compare sweep bars lint changelog build clean

help:
	@echo "make demo | test | test-all | test-bridges | test-distributed | test-dask | test-freethreaded | test-debug | test-ulp | test-package | test-oldest | test-sklearn | test-docs | test-mutants | coverage | docs | bench | compare | sweep | bars | lint | changelog | build | clean"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# The package is built once, and again when a source of its compiled modules has changed.
$(VENV)/built: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet -e .
	@touch $@

# What an extra names is installed beside the package: pip finds that already there, and builds nothing.
$(VENV)/installed-%: $(VENV)/built
	$(BIN)/pip install --quiet "fastbp[$*]"
	@touch $@

demo: $(VENV)/installed-demo
	$(BIN)/fastbp demo

# Everything with the best instruction set, then what depends on the kernels with each of the others that the processor has: in as many processes
# as there are processors (JOBS=4: in four). At last, in one process and with nothing beside it, what looks at threads, signals and the clock.
test: $(VENV)/installed-test
	@$(MAKE) --no-print-directory test-best
	@$(MAKE) --no-print-directory test-others
	@$(MAKE) --no-print-directory test-serial

test-best: $(VENV)/installed-test
	$(TEST) $(PARALLEL) -m "not serial" $(ARGS) $(OR_NONE)

test-others: $(VENV)/installed-test
	@for isa in $$($(BIN)/python -c "from fastbp._runtime import dispatch; print(*dispatch.supported()[1:])"); do \
	    echo "FASTBP_ISA=$$isa"; FASTBP_ISA=$$isa $(TEST) -q $(PARALLEL) -m "kernel and not serial" $(KERNEL_TESTS) $(ARGS) $(OR_NONE) || exit 1; done

test-serial: $(VENV)/installed-test
	$(TEST) -q -m serial $(SERIAL_TESTS) $(ARGS) $(OR_NONE)

# Every case of the grids of which `make test` runs some.
test-all:
	@$(MAKE) --no-print-directory test ARGS="--dense $(ARGS)"

# Beside torch, some gigabytes of it where no build for the processor alone is at hand, and the other libraries that there is a way to. Their pages
# and the examples of their modules' docstrings run here, too.
test-bridges: $(VENV)/installed-bridges
	$(TEST) $(PARALLEL) -m bridge $(BRIDGE_TESTS) $(ARGS)
	$(TEST) -q tests/test_docs.py -k "bridges or autograd or jax or torch"

# Several processes over MPI, whose library comes with the wheel of mpich.
test-distributed: $(VENV)/installed-test
	$(BIN)/pip install --quiet "fastbp[mpi]" mpich
	$(TEST) -q $(PARALLEL) tests/test_distributed.py tests/test_bench_distributed.py $(ARGS) $(OR_NONE)
	$(TEST) -q tests/test_distributed_mpi.py $(ARGS) $(OR_NONE)

# A cluster of dask on this machine, whose workers train together by torch.distributed.
test-dask: $(VENV)/installed-test
	$(BIN)/pip install --quiet torch==$(TORCH) "fastbp[dask]"
	$(TEST) -q -m dask tests/test_dask.py $(ARGS)

$(VENV)/installed-bridges: $(VENV)/installed-test
	$(BIN)/pip install --quiet torch==$(TORCH) "fastbp[autograd,jax,onnx]" gymnasium stable-baselines3
	@touch $@

# With a free-threaded interpreter: PYTHON=python3.13t.
test-freethreaded:
	$(MAKE) --no-print-directory VENV=$(VENV)-freethreaded test-threads

# But for the tests that count the calls of malloc: this interpreter makes other ones for its own objects.
test-threads: $(VENV)/built
	$(BIN)/pip install --quiet pytest pytest-timeout
	PYTHON_GIL=0 $(PYTEST) -q tests/test_freethreading.py tests/test_engine.py -k "not allocated" $(ARGS)

test-ulp: $(VENV)/installed-test
	$(PYTEST) tests/test_ulp.py -m ulp_full -s

# Built with checks into an environment of its own, from a copy: the compiled modules of the tree stay as they are.
test-debug:
	rm -rf build/debug && mkdir -p build/debug
	cp -r setup.py pyproject.toml MANIFEST.in Makefile *.md LICENSE fastbp src_pyx tests examples bench docs tools changes build/debug/
	rm -f build/debug/fastbp/*.so build/debug/fastbp/*/*.so
	test -x $(VENV)-debug/bin/python || $(PYTHON) -m venv $(VENV)-debug
	cd build/debug && FASTBP_DEBUG=1 $(abspath $(VENV)-debug)/bin/pip install --quiet -e ".[test]"
	cd build/debug && SCIPY_ARRAY_API=1 $(abspath $(VENV)-debug)/bin/python -m pytest $(PARALLEL) -m "not serial" $(ARGS) $(OR_NONE)
	cd build/debug && $(abspath $(VENV)-debug)/bin/python -m pytest -m serial $(ARGS) $(OR_NONE)

# The sdist, the wheel from it, and that wheel in an environment of its own, with the sources out of reach.
test-package:
	tools/check_package.sh $(PYTHON)

# The oldest and the newest setuptools, Cython and numpy that the build declares, with the oldest Python by PYTHON=python3.11.
test-oldest:
	tools/check_versions.sh $(PYTHON)

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

# The documentation as a site, build/site/index.html, that needs no network. Scripts of the gallery run again where they have changed.
docs: $(VENV)/installed-docs
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -n -j $(JOBS) -d build/site-doctrees docs build/site
	@echo "build/site/index.html"

# The site's links and reference, and each page in a browser: at two widths, light and dark. Screenshots go into build/site-screenshots.
CHROMIUM ?= $(shell for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$name && break; done)
test-docs:
	@test -n "$(CHROMIUM)" || { echo "make test-docs needs Chromium: apt-get install chromium (Debian, Ubuntu) or dnf install chromium (Fedora);" \
	    "or CHROMIUM=/path/to/chrome"; exit 1; }
	@$(MAKE) --no-print-directory docs $(VENV)/installed-test,site
	CHROMIUM="$(CHROMIUM)" $(PYTEST) -q -m site tests/test_site.py $(ARGS)

# The tests themselves: what they find, and what they reach. Both build a copy of the tree in build/, which stays for the next time.
# ARGS="--only erf-seam" or ARGS="--tests DIR" goes on to the tool.
test-mutants: $(VENV)/installed-test,coverage
	$(BIN)/python tools/mutants.py $(ARGS)

coverage: $(VENV)/installed-test,coverage
	$(BIN)/python tools/covered.py --output build/coverage.json $(ARGS)

bench: $(VENV)/installed-bench
	$(PYTEST) bench --benchmark-only --benchmark-columns=min,median,rounds --benchmark-group-by=group $(ARGS)

# ISA=avx2 holds every rival to these instructions.
HELD = $(if $(ISA),--isa $(ISA))

# PYTHONS="--python torch=DIR/bin/python" names interpreters of rivals that are installed elsewhere.
compare: $(VENV)/installed-bench
	$(BIN)/python -m bench.compare $(HELD) $(PYTHONS) $(ARGS)
	$(BIN)/python -m bench.bursts $(HELD) $(PYTHONS)
	$(BIN)/python -m bench.images $(HELD) $(PYTHONS)
	$(BIN)/python -m bench.accelerate
	$(BIN)/python -m bench.torch_modules $(HELD) $(PYTHONS)

sweep: $(VENV)/installed-bench
	$(BIN)/python -m bench.sweep $(HELD) $(ARGS)

# Everything that the project sets itself bars on, one after another: about twenty minutes on a machine that does nothing else.
bars: $(VENV)/installed-bench
	$(BIN)/python -m bench.compare $(ARGS)
	$(BIN)/python -m bench.sweep --only sweep
	$(BIN)/python -m bench.sweep --only thin
	$(BIN)/python -m bench.widths
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
	$(BIN)/python -m bench.bursts --rivals fastbp,numpy
	$(BIN)/python -m bench.interrupts
	$(BIN)/python -m bench.imports
	$(BIN)/python -m bench.memory --large
	$(BIN)/python -m bench.images --memory

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src_pyx
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest fastbp --ignore-missing-stub --concise \
		--mypy-config-file pyproject.toml --allowlist tools/stubtest.allow
	$(BIN)/python tools/check_docstrings.py

# The notes of the next release, from the files in changes/.
changelog: $(VENV)/installed-dev
	$(BIN)/towncrier build --draft

build: $(BIN)/python
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build

clean:
	rm -rf build dist *.egg-info fastbp/*.so fastbp/*/*.so docs/api docs/gallery docs/repository $(VENV) $(VENV)-debug $(VENV)-freethreaded $(VENV)-sklearn-*
