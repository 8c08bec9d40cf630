# Two commands do everything: `make demo` and `make test`. `make bench` measures, `make docs` builds
# the documentation, `make dist` what is released.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# What a bare Debian or Ubuntu lacks for a napari window on a virtual display.
DISPLAY_PACKAGES := xvfb xauth libgl1 libegl1 libopengl0 libglib2.0-0 libdbus-1-3 libfontconfig1 \
  libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 \
  libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1

# Of these the ones that tell whether it is there: names of packages change, of libraries do not.
DISPLAY_LIBRARIES := libGL.so.1 libEGL.so.1 libOpenGL.so.0 libglib-2.0.so.0 libxkbcommon-x11.so.0 \
  libxcb-cursor.so.0 libxcb-icccm.so.4 libxcb-image.so.0 libxcb-keysyms.so.1 libxcb-xkb.so.1

# Each test process, and each that a test starts, reads what was compiled before.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test coverage lint bench docs dist display clean

demo: $(VENV)/demo.stamp
	$(BIN)/napari-rln demo --out demo --overwrite

test: lint display
	$(BIN)/npe2 validate napari-rln --imports
	xvfb-run --auto-servernum --server-args="-screen 0 1600x1000x24" $(BIN)/python -m pytest \
	  --numprocesses auto --maxprocesses 4 --dist loadfile

coverage: $(VENV)/dev.stamp
	$(BIN)/python -m pytest tests/core tests/outside --numprocesses auto --maxprocesses 4 \
	  --dist loadfile --cov=napari_rln --cov-report=term:skip-covered

lint: $(VENV)/dev.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pre-commit run --all-files --show-diff-on-failure

bench: $(VENV)/dev.stamp display
	xvfb-run --auto-servernum $(BIN)/python -m pytest -m slow
	$(BIN)/python benchmarks/field.py
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/rld.py

docs: $(VENV)/docs.stamp
	OMP_WAIT_POLICY=PASSIVE $(BIN)/sphinx-build -W --keep-going --quiet -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Builds, checks, and tries both: the wheel in an environment of its own, and there, with pytest, the
# unpacked sdist, all of whose tests must find what they import.
dist: $(VENV)/dev.stamp
	rm -rf dist build/dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/python packaging/check_dist.py
	$(BIN)/python -m venv build/dist/venv
	build/dist/venv/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl pytest hypothesis
	tar --extract --gzip --file dist/*.tar.gz --directory build/dist --one-top-level=sdist --strip-components 1
	cd build/dist && venv/bin/napari-rln --version && venv/bin/napari-rln rld sdist/src/napari_rln/samples/bead.tif \
	  --psf sdist/src/napari_rln/samples/bead_psf.tif --voxel-um 0.1 0.1 0.1 --psf-voxel-um 0.1 0.1 0.1 \
	  --iterations 3 --out bead.ome.tif
	cd build/dist/sdist && ../venv/bin/python -m pytest --quiet --collect-only tests/core >/dev/null && \
	  ../venv/bin/python -m pytest --quiet tests/core/test_package.py tests/core/test_benchmarks.py

display:
	@command -v xvfb-run >/dev/null && command -v xauth >/dev/null && \
	( for library in $(DISPLAY_LIBRARIES); do /sbin/ldconfig -p | grep -q $$library || exit 1; done ) || { \
	  install="apt-get install --yes --no-install-recommends $(DISPLAY_PACKAGES)"; \
	  if ! command -v apt-get >/dev/null; then \
	    command -v xvfb-run >/dev/null || { echo "install xvfb (virtual display) with this system's package manager"; exit 1; }; \
	  elif [ "$$(id -u)" = 0 ]; then \
	    apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive $$install >/dev/null; \
	  elif sudo --non-interactive true 2>/dev/null; then \
	    sudo apt-get update --quiet=2 && sudo DEBIAN_FRONTEND=noninteractive $$install >/dev/null; \
	  else echo "run this line, then make test again:"; echo "  sudo $$install"; exit 1; fi; }

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
	  { echo "on Debian or Ubuntu: sudo apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable ".[fast]"
	touch $@

$(VENV)/dev.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/demo.stamp

$(VENV)/docs.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable ".[docs,fast]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist docs/_build docs/api docs/gallery .mypy_cache .ruff_cache .pytest_cache
