"""Several processes from either door: the paper's own notebook, and the command line.

The notebook and the command say nothing about processes; LATENTPAPERS_PROCESSES does (on GPUs:
their number). Here LAG's training notebook and `latentpapers train lag --run proof` run
with two processes and meet the losses of one. `test_engine_processes` holds gradients equal to
1e-12.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pytest

from latentpapers import paths
from latentpapers.runner.kernels import manager
from latentpapers.train import checkpoint

pytestmark = pytest.mark.kernel

# float32: halves of a batch are summed in another order (1e-7), and 30 steps of Adam, which divides
# by the gradient's size, let that grow; another seed differs by ten times this and more
LOSSES = 5e-3


def environment(processes: int) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("LATENTPAPERS_JOB")}
    lib = str(paths.root() / "lib")
    return own | {"LATENTPAPERS_PROCESSES": str(processes), "OMP_NUM_THREADS": "1",
                  "PYTHONPATH": lib}  # fmt: skip


def history(state: Path) -> tuple[list[str], np.ndarray]:
    kept = checkpoint.load(state)["history"]
    return kept["terms"], np.array(kept["rows"], np.float64)


def by_command(folder: Path, processes: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """`latentpapers train lag --run proof --preset quick`."""
    words = ["train", "lag", "--run", "proof", "--preset", "quick", "--seed", str(seed)]
    words += ["--out", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "latentpapers", *words], env=environment(processes), check=True,
        capture_output=True, timeout=400,
    )  # fmt: skip
    return history(folder / f"proof_s{seed}.state.safetensors")


def by_notebook(folder: Path, processes: int) -> tuple[list[str], np.ndarray]:
    """LAG's training notebook as it is, up to its first training cell, in a kernel."""
    from nbclient import NotebookClient

    file = paths.root() / "notebooks" / "lag" / "2_training.ipynb"
    notebook = nbformat.reads(file.read_text(), as_version=4)
    cells = [c for c in notebook.cells if c["cell_type"] == "code"]
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    last = next(i for i, found in enumerate(tags) if "train" in found)
    given = next(i for i, found in enumerate(tags) if "parameters" in found)
    changed = nbformat.v4.new_code_cell(f"out_dir = {str(folder)!r}")
    notebook.cells = [*cells[: given + 1], changed, *cells[given + 1 : last + 1]]
    with (folder / "kernel.log").open("wb") as log, tempfile.TemporaryDirectory() as sockets:
        kernel = manager(environment(processes), log, Path(sockets))
        NotebookClient(notebook, km=kernel, timeout=400).execute(cwd=str(file.parent))
    return history(folder / "checkpoints" / "proof.state.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return by_command(tmp_path_factory.mktemp("alone"), 1)


def assert_same(one: tuple[list[str], np.ndarray], other: tuple[list[str], np.ndarray]) -> None:
    assert one[0] == other[0]
    np.testing.assert_allclose(other[1], one[1], rtol=LOSSES, atol=LOSSES)


def test_the_command_line_with_two_processes_gives_the_losses_of_one(tmp_path, alone):
    assert_same(alone, by_command(tmp_path, 2))


def test_the_notebook_with_two_processes_gives_the_losses_of_one(tmp_path, alone):
    assert_same(alone, by_notebook(tmp_path, 2))


def test_control_another_seed_has_other_losses(tmp_path, alone):
    _, other = by_command(tmp_path, 1, seed=1)
    assert np.abs(other - alone[1]).max() > 10 * LOSSES
