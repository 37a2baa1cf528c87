# make help lists the targets and variables.
#   make reproduce PAPER=avae PRESET=gpu SEEDS=0,1,2 BUDGET=4 OVERRIDES="batch=32"
SHELL := /bin/bash
.DEFAULT_GOAL := help
PRESET ?= quick
SEEDS ?= 0
# Quick and cpu fill the cores; beyond them one job at a time has the GPU unless JOBS says otherwise.
ifneq ($(filter quick cpu,$(PRESET)),)
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
endif
JOBS ?= 1
UV ?= $(shell command -v uv || echo .venv-bootstrap/bin/uv)

# One thread a process: parallel work comes from JOBS, and one thread is bit-equal from run to run.
ifneq ($(filter quick cpu,$(PRESET)),)
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
endif
export PYTHONPATH := $(CURDIR)/lib$(if $(PYTHONPATH),:$(PYTHONPATH))

# OFFLINE=1: the environment that is here, else the interpreter at hand; no uv, no Snakemake, nothing
# fetched.
ifdef OFFLINE
PYTHON ?= $(or $(wildcard .venv/bin/python),python3)
READY :=
REPRODUCE := run
else
PYTHON := .venv/bin/python
READY := setup
REPRODUCE := reproduce
endif

REQUEST = --preset '$(PRESET)' --seeds '$(SEEDS)' $(if $(PAPER),--paper '$(PAPER)') \
  $(if $(BUDGET),--budget '$(BUDGET)') $(if $(DEVICE),--device '$(DEVICE)') \
  $(if $(RUN_ID),--run-id '$(RUN_ID)') $(foreach change,$(OVERRIDES),--set '$(change)')
RUN = $(PYTHON) -m latentpapers

.PHONY: help setup reproduce refresh plan collect check lint test test-notebooks test-latest \
  test-floor test-slurm test-browser words lab gallery bundle rehearse benchmark clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1|/p' Makefile | awk -F'|' '{printf "  %-14s %s\n", $$1, $$2}'
	@echo '  with, for example: PAPER=avae,lag PRESET=quick|cpu|gpu|paper SEEDS=0,1,2 JOBS=2'
	@echo '    DEVICE=cuda:1 BUDGET=4 OVERRIDES="n_images=10" RUN_ID=name OFFLINE=1'

setup:  ## .venv from requirements.lock; does nothing if it is there already
	@UV="$(UV)" bash ci/setup.sh

reproduce: $(READY)  ## run what is out of date, then compare with the committed results
	@$(RUN) $(REPRODUCE) --jobs $(JOBS) $(REQUEST)

refresh: $(READY)  ## the same, then replace the committed results and notebook outputs
	@$(RUN) refresh --jobs $(JOBS) $(REQUEST)

plan: $(READY)  ## the jobs, why they would run, and what they cost
	@$(RUN) plan $(REQUEST)

collect: $(READY)  ## distil and compare what has run, without running anything
	@$(RUN) collect $(REQUEST)

lint: $(READY)
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check lib tests ci

check: lint  ## lint and every test that starts no kernel
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not kernel" -n 2

test: check test-notebooks  ## everything that CI runs
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m kernel -n 2 --dist loadfile

test-notebooks: $(READY)  ## execute the notebooks and compare their checked cells
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && cd $(CURDIR) && \
	LATENTPAPERS_OUT="$$out/results" OMP_NUM_THREADS=1 PYTHONHASHSEED=0 \
	$(abspath $(PYTHON)) -m pytest -o testpaths= -p no:cacheprovider --nbval-lax \
	  --nbval-sanitize-with ci/nbval_sanitize.cfg --nbval-current-env \
	  -n 2 --dist loadfile notebooks/

test-latest:  ## the unit tests with the newest versions that pyproject.toml allows
	@UV="$(UV)" bash ci/other_versions.sh highest

test-floor:  ## the unit tests with the oldest versions that pyproject.toml allows
	@UV="$(UV)" bash ci/other_versions.sh lowest-direct

test-slurm: $(READY)  ## the plan on a Slurm of one node (root; Debian's slurmctld slurmd slurm-client munge)
	@LATENTPAPERS_SLURM=1 OMP_NUM_THREADS=1 $(PYTHON) -m pytest tests/test_slurm.py

test-browser: $(READY)  ## a real browser uses every widget and the gallery (needs chromium; installs JupyterLab apart)
	@UV="$(UV)" LATENTPAPERS_PYTHON="$(abspath $(PYTHON))" bash ci/browser.sh

words: $(READY)  ## rewrite what is generated: README, results/README.md, gaps, floors, links
	@$(RUN) words

lab: setup  ## JupyterLab at the first page
	@$(UV) pip install --quiet --python .venv/bin/python --group lab
	@.venv/bin/jupyter lab $(firstword $(wildcard notebooks/start_here.ipynb) notebooks/avae/1_derivation.ipynb)

gallery: $(READY)  ## static pages of all results, in public/
	@$(RUN) gallery --out public

bundle: $(READY)  ## code, data and wheels for a node without network, in bundle/
	@$(RUN) bundle --out bundle $(if $(HAVE),--have $(HAVE)) $(REQUEST)

rehearse: $(READY)  ## preset gpu at a tiny size on a pretended GPU: does every cell run? (PAPER=avae)
	@OMP_NUM_THREADS=1 $(PYTHON) tests/rehearsal.py $(PAPER) --seeds '$(SEEDS)'

benchmark: $(READY)  ## seconds and memory of every job; our code against the plain version
	@$(RUN) benchmark $(REQUEST)
	@OMP_NUM_THREADS=1 $(PYTHON) ci/benchmark.py
	@$(PYTHON) ci/benchmark_gpu.py

clean:  ## remove what runs (their trainings too) and builds left behind; results and .venv stay
	@rm -rf .snakemake public bundle build dist .pytest_cache .ruff_cache
	@rm -rf results/*/*/runs
	@find lib tests ci -name __pycache__ -type d -prune -exec rm -rf {} +
