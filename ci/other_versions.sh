#!/usr/bin/env bash
# The unit tests with other versions than the lock's: `highest` or `lowest-direct` (the oldest that
# pyproject.toml allows). In an environment of its own; the checkout's stays as it is.
set -euo pipefail
resolution=${1:?highest or lowest-direct}
uv=${UV:-uv}
where=$(mktemp -d)
trap 'rm -rf "$where"' EXIT
"$uv" venv --quiet --python "$(command -v python3)" "$where/venv"
"$uv" pip compile --quiet --resolution "$resolution" --group pyproject.toml:dev pyproject.toml \
  -o "$where/requirements.txt"
"$uv" pip sync --quiet --python "$where/venv/bin/python" "$where/requirements.txt"
PYTHONPATH="$PWD/lib" OMP_NUM_THREADS=1 \
  "$where/venv/bin/python" -m pytest -m "not kernel" -n 2 --ignore tests/test_environment.py
