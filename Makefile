# `make demo`, `make test` and `make bench` do all their own set-up. ARGS are passed on: make demo ARGS="-o json".
.PHONY: demo test soak kernel bench conformance manual check wheel deb install uninstall clean lock
ARGS =
# Most tests wait for namespaces and timers, not for the processor
JOBS = $(shell expr $$(nproc) + 1)
PYTEST = .venv/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
UV = uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet

demo:
	@scripts/setup demo
	@.venv/bin/python -m wgdisco lab demo $(ARGS)

test:
	@scripts/setup test
	$(PYTEST) $(ARGS)

soak:
	@scripts/setup test
	$(PYTEST) -m soak $(ARGS)

# What needs a kernel with WireGuard, in qemu
kernel:
	@scripts/setup test
	$(PYTEST) tests/system/test_kernel.py $(ARGS)

# Beside other engines, ten minutes; writes docs/performance.md, .json and .svg
bench:
	@scripts/setup bench
	.venv/bin/python -m bench.throughput $(ARGS)

# Runs the tests that are marked with rules, and writes docs/conformance.md
conformance:
	@scripts/setup test
	$(PYTEST) -p tests.conformance -m 'rule and not soak' $(ARGS)

# Man pages and completions from the command line's parser, into share/
manual:
	@scripts/setup demo
	@.venv/bin/python scripts/manual

check:
	@scripts/setup demo
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -q tests/test_architecture.py

# Packages, into dist/: a wheel for manylinux (ARGS="x86_64 aarch64": both), a .deb for this release of Debian
wheel:
	@scripts/wheel $(ARGS)

deb:
	@scripts/deb

install:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install

uninstall:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install uninstall

clean:
	rm -rf .venv .peers build dist *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache wgdisco/tunnel/_native.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock:
	$(UV) pyproject.toml -o requirements.lock
	$(UV) pyproject.toml --all-extras -o requirements-dev.lock
	python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	    | $(UV) - -o requirements-build.lock
	printf 'auditwheel>=6.8\npatchelf>=0.17\n' | $(UV) - -o requirements-wheel.lock
