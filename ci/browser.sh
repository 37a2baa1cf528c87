#!/usr/bin/env bash
# A headless Chromium drives every page with sliders. JupyterLab and Playwright live in an
# environment of their own (they would slow each kernel start); kernels run in the project's.
# Reactions above LATENTPAPERS_REACTION seconds fail; screenshots go to LATENTPAPERS_SHOTS.
set -euo pipefail
uv=${UV:-uv}
"$uv" venv --quiet --allow-existing .venv-browser
"$uv" pip install --quiet --python .venv-browser/bin/python --group "${PYPROJECT:-pyproject.toml}:browser"
export LATENTPAPERS_BROWSER=1 LATENTPAPERS_REACTION="${LATENTPAPERS_REACTION:-0.7}"
export LATENTPAPERS_SHOTS="${LATENTPAPERS_SHOTS:-build/screenshots}"
export LATENTPAPERS_PYTHON="${LATENTPAPERS_PYTHON:-$PWD/.venv/bin/python}" OMP_NUM_THREADS=1
.venv-browser/bin/python -m pytest -rs tests/test_browser_gallery.py tests/test_browser.py "$@"
echo "screenshots and reactions: $LATENTPAPERS_SHOTS"
