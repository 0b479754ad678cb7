# make demo | make test | make check | make bench. Each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DARKROOM_CACHE ?= $(CURDIR)/$(VENV)/cache

.PHONY: browser screenshots scale bench-gpu findings kills overfit reference methods-table demo test test-slow check bench setup pocket clean

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[vision,tag,optim,gpu,track,imagenet,studio,scale,s3]' \
		pytest hypothesis mypy ruff lycoris-lora einops toml webdataset statsmodels pandas playwright 'moto[server]'
	touch $@

# Chromium, for the tests of the web page and its pictures in the docs; they skip without it.
browser:
	tools/browser.sh

# Pictures of every page, for docs/studio.md.
screenshots: setup browser
	$(BIN)/python tools/studio_pictures.py

demo: setup
	$(BIN)/darkroom demo --out darkroom-demo

# One OpenMP thread a process: tests start processes of their own, and two crews on two cores slow each other tenfold (docs/log.md).
test: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),1)
test: check
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

test-slow: setup
	$(BIN)/python -m pytest -m slow

bench: setup
	$(BIN)/python bench/train_step.py
	$(BIN)/python bench/draw_sixteen.py
	$(BIN)/python bench/gpu.py --pocket
	test -z "$(SCRIPT)" || $(BIN)/python bench/script.py --script $(SCRIPT) $(if $(LAUNCHER),--launcher $(LAUNCHER))

# make bench SCRIPT=train_dreambooth_lora_sdxl.py [LAUNCHER=run_peer.py] also runs diffusers' own script, whole processes side by side.

# The real SDXL U-Net on a GPU.
bench-gpu: setup
	$(BIN)/python bench/gpu.py

# A planted overfit: how often the step that is picked lies before the copy score turns. An hour on one core; goes on where it was stopped.
overfit: setup
	$(BIN)/python tools/planted_overfit.py

# About 17 minutes on two idle cores; goes on where it was stopped.
findings: setup
	$(BIN)/python tools/findings.py

# Fifty kills -9 over one training.
kills: setup
	$(BIN)/python tools/kill_training.py

reference: setup
	$(BIN)/darkroom recipes --reference > $(VENV)/reference.md
	mv $(VENV)/reference.md docs/reference.md

# docs/scale.md; the rates: python bench/scale_rates.py
scale: setup
	$(BIN)/python tools/scale_plan.py > $(VENV)/scale.md
	mv $(VENV)/scale.md docs/scale.md

methods-table: setup
	$(BIN)/python tools/methods_table.py

# Developers only: builds the pocket model from nothing (hours on two cores).
pocket: setup
	nice $(BIN)/python tools/pocket/build.py

clean:
	rm -rf $(VENV) darkroom-demo runs .mypy_cache .ruff_cache .pytest_cache
