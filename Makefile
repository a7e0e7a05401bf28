# make demo    the main job on the shipped photos: masks and words, overlays and a page to look at
# make test    every check and every test; make test-fast: without real servers, browsers and killed processes
# make pam ARGS="perceive photo.jpg --point 320,240"    the command line of this checkout
#
# Each makes the environment it needs, once per machine (tools/environment.py).

PYTHON ?= python3
# Processes that share the tests, each of which computes on one thread.
WORKERS ?= 2
ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
export PYTHONPATH := $(ROOT):$(ROOT)/core$(if $(PYTHONPATH),:$(PYTHONPATH))

pytest = -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
# The interpreter of the environment; empty, and the recipe stopped, where it could not be made.
find-python = python="$$($(PYTHON) $(ROOT)/tools/environment.py $(1))" || exit 1

.PHONY: demo test test-fast check pam help

help:
	@sed -n 's/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST)) | head -5

demo:
	@$(call find-python); rm -rf demo && \
	"$$python" -m pam_plugins perceive --prompts examples/clicks.jsonl --lang en,zh \
	  --out demo/results.jsonl --save demo --export overlay --export html

test: check
	@$(call find-python,--browser); "$$python" $(pytest)

test-fast:
	@$(call find-python); "$$python" $(pytest) -m "not e2e"

check:
	@$(call find-python); "$$python" -m ruff check . && "$$python" -m ruff format --check . && \
	"$$python" -m mypy && "$$python" -c "from importlinter.cli import lint_imports_command as c; c()"

pam:
	@$(call find-python); "$$python" -m pam_plugins $(ARGS)

pam-python:
	@$(call find-python); "$$python" $(ARGS)
