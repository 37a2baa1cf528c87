#!/usr/bin/env bash
# Runs a bundle (see `make bundle`) on a node without network. The node has Python and torch.
#
#   bash offline_node.sh [WORK] [more options of `latentpapers run`]
#
# WORK (default: ./latentpapers-work) receives the code and the results. The same command again
# resumes: what is up to date is not run twice. At the end WORK/results.tar.gz holds the results.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-latentpapers-work}
shift || true
python=${PYTHON:-python3}

(cd "$here" && sha256sum --quiet -c SHA256SUMS) || {
  echo "the bundle in $here is damaged or incomplete; copy its parts again." >&2
  exit 2
}
"$python" - <<'CHECK'
import sys
from importlib import metadata

if sys.version_info < (3, 11):
    sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; set PYTHON.")
try:
    found = metadata.version("torch")
except metadata.PackageNotFoundError:
    sys.stderr.write("note: torch is not installed here; only notebooks without it will run.\n")
else:
    if tuple(map(int, found.split("+")[0].split(".")[:2])) < (2, 11):
        sys.exit(f"torch 2.11 or newer is needed, this node has {found}.")
CHECK

mkdir -p "$work"
work=$(cd "$work" && pwd)
cat "$here"/part.* | tar xz -C "$work"
export PYTHONPATH="$work/code/lib:$work/site${PYTHONPATH:+:$PYTHONPATH}"
export LATENTPAPERS_ROOT="$work/code"
export LATENTPAPERS_OUT="$work/results"
export LATENTPAPERS_DATA="$work/data"
export LATENTPAPERS_CACHE="$work/cache"
mapfile -t request < "$work/request"
status=0
(cd "$work/code" && "$python" -m latentpapers run "${request[@]}" "$@") || status=$?
# Checkpoints in progress stay on the node; everything else travels back.
tar czf "$work/results.tar.gz" -C "$work" --exclude='*.state.safetensors' --exclude=superseded \
  results 2>/dev/null || true
ls -l "$work/results.tar.gz"
exit "$status"
