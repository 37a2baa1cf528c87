#!/usr/bin/env bash
# Builds .venv from requirements.lock, hashes checked. Idempotent: with an unchanged lock it only
# compares one hash. Called by `make setup`, in the root of the checkout.
set -euo pipefail
lock=requirements.lock
want=$(sha256sum "$lock" 2>/dev/null || shasum -a 256 "$lock")
want=${want%% *}
if [ -x .venv/bin/python ] && [ "$(cat .venv/.lock-sha 2>/dev/null)" = "$want" ]; then
  exit 0
fi

uv=${UV:-$(command -v uv || true)}
if [ -z "$uv" ] || [ ! -x "$(command -v "$uv" || true)" ]; then
  echo "uv is missing: installing it into .venv-bootstrap" >&2
  python3 -m venv .venv-bootstrap
  .venv-bootstrap/bin/python -m pip install --quiet --disable-pip-version-check uv
  uv=.venv-bootstrap/bin/uv
fi

[ -x .venv/bin/python ] || "$uv" venv --quiet --python ">=3.11" .venv
rm -f .venv/.lock-sha # a killed sync must not look finished
"$uv" pip sync --quiet --require-hashes --python .venv/bin/python "$lock"
# The checkout's own library, without a build step that would fetch a build backend.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$PWD/lib" > "$site/latentpapers.pth"
printf '#!%s\nfrom latentpapers.cli import main\nraise SystemExit(main())\n' \
  "$PWD/.venv/bin/python" > .venv/bin/latentpapers
chmod +x .venv/bin/latentpapers
printf '%s\n' "$want" > .venv/.lock-sha
echo "environment ready: .venv"
